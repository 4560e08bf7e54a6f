//! The way from `main` to a running program and back to an exit code.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use coordination::{InMemory, membership};
use model::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    Arguments, BUILD, Error, Limits, Options, Program, Reach, Reload, Result, Service, Stopper,
    default_address, parse_config,
};

/// The exit status of wrong arguments or config.
const EXIT_USAGE: u8 = 2;
/// How long blocking work may hold up the end of the program.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(1);
/// The listeners of a program that runs one service.
const WEB: &str = "web";
const GRPC: &str = "grpc";

/// Runs one service as its own program: reads arguments and config, starts, stops. Exit status 0 after a stop in
/// order, 1 after a failure, 2 when arguments or config are wrong.
#[must_use]
pub fn main<S: Service>() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap; it knows where each belongs and with which status.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    match checked::<S>(&arguments) {
        Ok(checked) => {
            let source =
                arguments.config.as_deref().map_or("defaults".to_owned(), |p| p.display().to_string());
            run(&checked.telemetry, &source, async || {
                single::<S>(checked.config, checked.peers, &arguments).await
            })
        }
        Err(faults) => fail(&Error::Config { faults }, EXIT_USAGE),
    }
}

/// Runs a program under telemetry until it has stopped: SIGTERM and SIGINT stop it, a second one at once, SIGHUP
/// is handed to its services. `build` is called within the runtime; `config_source` is logged.
#[must_use]
pub fn run<F>(telemetry: &telemetry::Options, config_source: &str, build: F) -> ExitCode
where
    F: AsyncFnOnce() -> Result<Program>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("worker").build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(cause) => return fail(&Error::System { what: "start the async runtime", cause }, 1),
    };
    let outcome = runtime.block_on(async {
        let installed = match telemetry::init(telemetry) {
            Ok(installed) => installed,
            Err(error) => return fail(&Error::Config { faults: vec![error.to_string()] }, EXIT_USAGE),
        };
        log_panics();
        // TLS clients look the provider up; a second program in one process finds it there.
        drop(rustls::crypto::ring::default_provider().install_default());
        let (version, revision) = (BUILD.version, BUILD.revision);
        info!(name = telemetry.name, version, revision, config = config_source, "starting");
        let outcome = run_until_signals(build).await;
        let code = match &outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!(%error, "ended with a failure");
                ExitCode::FAILURE
            }
        };
        match tokio::task::spawn_blocking(|| installed.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "traces were lost"),
            Err(error) => warn!(%error, "traces were lost"),
        }
        code
    });
    runtime.shutdown_timeout(BLOCKING_TIMEOUT);
    outcome
}

async fn run_until_signals<F>(build: F) -> Result<()>
where
    F: AsyncFnOnce() -> Result<Program>,
{
    let stopper = Stopper::default();
    let (wishes, reload) = Reload::new();
    let told = wishes.clone();
    let signals = deliver_signals(stopper.clone(), told);
    let program = async { build().await?.run(stopper, (wishes, reload)).await };
    tokio::select! {
        outcome = program => outcome,
        refused = signals => refused,
    }
}

/// Hands on signals; returns only when the system does not deliver them.
async fn deliver_signals(stopper: Stopper, reload: watch::Sender<u64>) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|cause| Error::System { what: "listen for signals", cause });
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    loop {
        tokio::select! {
            Some(()) = terminate.recv() => {
                info!(signal = "SIGTERM", "asked to stop");
                stopper.stop();
            }
            Some(()) = interrupt.recv() => {
                info!(signal = "SIGINT", "asked to stop");
                stopper.stop();
            }
            Some(()) = hangup.recv() => {
                info!(signal = "SIGHUP", "asked to reload");
                reload.send_modify(|wishes| *wishes += 1);
            }
        }
    }
}

/// A panic is logged where it happens; who awaits its task reports it once more as a failure.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(error = crate::tasks::panic_message(panic.payload()), place, "panic");
    }));
}

/// Arguments and config that were found good.
struct Checked<C> {
    config: C,
    telemetry: telemetry::Options,
    peers: Vec<(coordination::Role, String)>,
}

fn checked<S: Service>(arguments: &Arguments) -> std::result::Result<Checked<S::Config>, Vec<String>> {
    let mut faults = Vec::new();
    if !arguments.etcd_endpoints.is_empty() {
        faults.push(
            "--etcd.endpoints: coordination through etcd is not built yet; name members with --cluster.peer"
                .to_owned(),
        );
    }
    let peers = arguments.static_members().map_err(|found| faults.extend(found)).unwrap_or_default();
    let telemetry =
        arguments.telemetry(S::ROLE.as_str()).map_err(|found| faults.extend(found)).unwrap_or_default();
    let config = match &arguments.config {
        None => parse_config::<S::Config>("").map_err(|found| faults.extend(found)).ok(),
        Some(path) => match std::fs::read_to_string(path) {
            Ok(yaml) => parse_config::<S::Config>(&yaml)
                .map_err(|found| {
                    faults.extend(found.iter().map(|fault| format!("{}: {fault}", path.display())))
                })
                .ok(),
            Err(error) => {
                faults.push(format!("read {}: {error}", path.display()));
                None
            }
        },
    };
    match config {
        Some(config) if faults.is_empty() => Ok(Checked { config, telemetry, peers }),
        _ => Err(faults),
    }
}

/// The program of a single service: its members are those given by hand.
async fn single<S: Service>(
    config: S::Config,
    peers: Vec<(coordination::Role, String)>,
    arguments: &Arguments,
) -> Result<Program> {
    let coordinator = Arc::new(InMemory::new());
    for (role, address) in peers {
        let added = membership::add_static(&*coordinator, role, &address, &address).await;
        added.map_err(|cause| Error::Membership { role, cause })?;
    }
    let web = arguments.web_address.unwrap_or_else(|| default_address(S::ROLE));
    let options = Options {
        clock: Clock::System,
        coordinator,
        member_name: arguments.advertise.clone().unwrap_or_else(|| web.to_string()),
        reach: Reach::Network { advertise: arguments.advertise.clone() },
        grace: arguments.grace(),
        limits: Limits::default(),
    };
    let program = Program::new(options).listen(WEB, web);
    // Peers speak gRPC: where it has a listener of its own, that is the one they are told.
    Ok(match arguments.grpc_address {
        None => program.service::<S>(config, &[WEB]),
        Some(grpc) => program.listen(GRPC, grpc).service::<S>(config, &[GRPC, WEB]),
    })
}

fn fail(error: &Error, status: u8) -> ExitCode {
    // Before logs are set up, and for a person to read. Nobody is left to be told of a closed stderr.
    drop(writeln!(std::io::stderr(), "{error}"));
    ExitCode::from(status)
}
