//! Runs discovery as its own process.
fn main() -> std::process::ExitCode {
    service_runtime::main::<discovery::Service>()
}
