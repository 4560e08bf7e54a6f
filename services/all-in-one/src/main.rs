//! `tributary`: any one of the five services, or all of them in one process. No logic of its own: it turns flags
//! into the services' settings.

mod check;
mod flags;
mod program;
mod promql;
mod rule_files;
mod tsdb_import;

use std::process::ExitCode;

use flags::{Command, Flags, TestWhat};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "this is main")]
    let arguments: Vec<_> = std::env::args_os().collect();
    // A role's own flags follow its name; they are not this program's.
    match arguments.get(1).and_then(|a| a.to_str()) {
        Some("discovery") => service_runtime::main_from::<discovery::Service>(&arguments[1..]),
        Some("scraper") => service_runtime::main_from::<scraper::Service>(&arguments[1..]),
        Some("ingester") => service_runtime::main_from::<ingester::Service>(&arguments[1..]),
        Some("querier") => service_runtime::main_from::<querier::Service>(&arguments[1..]),
        Some("gateway") => service_runtime::main_from::<federation_gateway::Service>(&arguments[1..]),
        _ => match service_runtime::parse_flags::<Flags>("tributary", &arguments) {
            Ok((Flags { command: Some(Command::Check(check)), .. }, _)) => check::run(&check),
            Ok((Flags { command: Some(Command::Promql(promql)), .. }, _)) => promql::run(&promql.action),
            Ok((Flags { command: Some(Command::Test(test)), .. }, _)) => match &test.what {
                TestWhat::Rules(tests) => rule_files::test(tests),
            },
            Ok((Flags { command: Some(Command::Tsdb(tsdb)), .. }, _)) => tsdb_import::run(&tsdb.action),
            Ok((flags, shown)) => program::run(&flags, shown),
            Err(error) => {
                // Help and version are errors to clap; it knows where each belongs and with which status.
                drop(error.print());
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
        },
    }
}
