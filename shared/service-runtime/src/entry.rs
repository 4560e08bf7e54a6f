//! The way from `main` to a running program and back to an exit code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use coordination::{Coordinator, EtcdOptions, InMemory, Role, membership};
use model::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    Arguments, BUILD, Config as _, Error, Limits, Options, Overrides, Program, Reach, Reload, Result,
    Service, Stopper, WebConfig, WebUrl, parse_flags, read_config,
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
    #[expect(clippy::disallowed_methods, reason = "stands for the program's own main")]
    let arguments: Vec<OsString> = std::env::args_os().collect();
    main_from::<S>(&arguments)
}

/// As [`main`], with the arguments given: for a program of several roles. The first is the program's name.
#[must_use]
pub fn main_from<S: Service>(arguments: &[OsString]) -> ExitCode {
    let (arguments, flags) = match parse_flags::<Arguments>(S::ROLE.as_str(), arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are errors to clap; it knows where each belongs and with which status.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    match checked::<S>(&arguments, flags) {
        Ok(checked) => {
            let source =
                arguments.config.as_deref().map_or("defaults".to_owned(), |p| p.display().to_string());
            run(&checked.telemetry, &source, async || {
                let program = single::<S>(checked.config, checked.members, &arguments).await?;
                let program = program.reached_at(WEB, checked.url);
                Ok(match checked.web {
                    Some(web) => program.secure(WEB, web),
                    None => program,
                })
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
    // The allocator asks for huge pages. Without them a small heap is a fifth smaller, a series costs a third less to
    // add and queries take a sixth less, for 7 % more on samples of known series. Old kernels go on as before.
    rustix::thread::disable_transparent_huge_pages(true).ok();
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
    members: Members,
    web: Option<WebConfig>,
    url: WebUrl,
}

/// How members find each other.
#[derive(Debug, Default)]
struct Members {
    etcd: Option<EtcdOptions>,
    /// The members given by hand.
    given: Vec<(Role, String)>,
}

fn checked<S: Service>(
    arguments: &Arguments,
    flags: BTreeMap<String, String>,
) -> std::result::Result<Checked<S::Config>, Vec<String>> {
    let mut faults = Vec::new();
    let etcd = arguments.etcd().map_err(|found| faults.extend(found)).unwrap_or_default();
    let given = arguments.static_members().map_err(|found| faults.extend(found)).unwrap_or_default();
    let telemetry =
        arguments.telemetry(S::ROLE.as_str()).map_err(|found| faults.extend(found)).unwrap_or_default();
    let overrides = Overrides::of_process(arguments.storage_url.clone(), flags);
    let config = match &arguments.config {
        None => read_config::<S::Config>("", &overrides).map_err(|found| faults.extend(found)).ok(),
        Some(path) => match std::fs::read_to_string(path) {
            Ok(yaml) => read_config::<S::Config>(&yaml, &overrides)
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
    let config = config.map(|mut config| {
        faults.extend(config.take_flags(arguments));
        config
    });
    let web = arguments.web_config.as_deref().map(WebConfig::load).transpose();
    let web = web.map_err(|fault| faults.push(format!("--web.config.file: {fault}"))).unwrap_or_default();
    let url = arguments.web_url(S::ROLE).map_err(|fault| faults.push(fault)).unwrap_or_default();
    match config {
        Some(config) if faults.is_empty() => {
            Ok(Checked { config, telemetry, members: Members { etcd, given }, web, url })
        }
        _ => Err(faults),
    }
}

/// The program of a single service. Its members are those in etcd, and those given by hand until etcd has answered;
/// without etcd they are those given by hand.
async fn single<S: Service>(config: S::Config, members: Members, arguments: &Arguments) -> Result<Program> {
    let Members { etcd, given } = members;
    let (coordinator, fallback): (Arc<dyn Coordinator>, _) = match etcd {
        Some(options) => (crate::etcd::coordinator(options), given),
        None => {
            let coordinator = Arc::new(InMemory::new());
            for (role, address) in given {
                let added = membership::add_static(&*coordinator, role, &address, &address).await;
                added.map_err(|cause| Error::Membership { role, cause })?;
            }
            (coordinator, Vec::new())
        }
    };
    let web = arguments.web_address(S::ROLE);
    let options = Options {
        clock: Clock::System,
        coordinator,
        member_name: arguments.member_name.clone().unwrap_or_default(),
        reach: Reach::Network { advertise: arguments.advertise.clone() },
        grace: arguments.grace(),
        limits: Limits::default(),
    };
    let program = Program::new(options).fallback(fallback).listen(WEB, web);
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::{BoxError, Config, Environment, GrpcServices, Shutdown};

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct SampleConfig {
        shards: u32,
    }

    impl Config for SampleConfig {
        fn validate(&self) -> Vec<String> {
            if self.shards > 8 { vec!["shards: at most 8".to_owned()] } else { Vec::new() }
        }
    }

    struct Sample;

    impl Service for Sample {
        const ROLE: Role = Role::Querier;
        type Config = SampleConfig;

        async fn build(_: SampleConfig, _: &Environment) -> std::result::Result<Self, BoxError> {
            Ok(Self)
        }

        fn grpc(&self) -> GrpcServices {
            GrpcServices::new()
        }

        async fn run(self, shutdown: Shutdown) -> std::result::Result<(), BoxError> {
            shutdown.drained().await;
            Ok(())
        }
    }

    fn faults(flags: &[&str]) -> Vec<String> {
        let flags = std::iter::once("sample").chain(flags.iter().copied());
        let arguments = Arguments::try_parse_from(flags).expect("known flags");
        checked::<Sample>(&arguments, BTreeMap::new()).map(|_| ()).err().unwrap_or_default()
    }

    #[test]
    fn faults_of_flags_and_file_are_told_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("querier.yml");
        std::fs::write(&path, "shards: 9\nspeed: high\n").expect("written");
        let (config, path) = (format!("--service.config={}", path.display()), path.display());
        let expected = [
            "--etcd.endpoints \"http://h\": want http://HOST:PORT".to_owned(),
            "--cluster.peer \"x\": want ROLE=HOST:PORT".to_owned(),
            "--log.format: unknown log format \"xml\": want logfmt or json".to_owned(),
            format!("{path}: speed: unknown field `speed`, expected `shards`"),
            format!("{path}: shards: at most 8"),
        ];
        let flags = ["--etcd.endpoints=http://h", "--cluster.peer=x", "--log.format=xml", &config];
        assert_eq!(faults(&flags), expected);
        assert!(faults(&["--service.config=/no/such/file"])[0].starts_with("read /no/such/file: "));
        assert!(faults(&["--cluster.peer=ingester=h:1", "--etcd.endpoints=http://h:1,h:2"]).is_empty());
    }

    #[tokio::test]
    async fn a_single_service_knows_the_members_it_was_given() {
        let flags = ["sample", "--web.listen-address=127.0.0.1:0", "--grpc.listen-address=127.0.0.1:0"];
        let arguments = Arguments::try_parse_from(flags).expect("known flags");
        let given = vec![(Role::Ingester, "h:1".to_owned()), (Role::Ingester, "h:2".to_owned())];
        let members = Members { etcd: None, given };
        let program = single::<Sample>(SampleConfig::default(), members, &arguments).await;
        let program = program.expect("put together");
        let running = program.start(Stopper::default(), Reload::new()).await.expect("started");
        let mut members = running.peers().members(Role::Ingester);
        let roster = members.wait_for(|roster| !roster.members.is_empty()).await.expect("followed").clone();
        let addresses: Vec<&str> = roster.members.iter().map(|member| member.address.as_str()).collect();
        assert_eq!(addresses, ["h:1", "h:2"]);
        let mut own = running.peers().members(Role::Querier);
        let roster = own.wait_for(|roster| !roster.members.is_empty()).await.expect("followed").clone();
        let grpc = running.address("grpc").expect("bound").to_string();
        assert_eq!(roster.members[0].address, grpc, "peers are told the gRPC listener");
    }

    /// Waits until the members of a role are reached at these addresses.
    async fn reached_at(program: &crate::Running, role: Role, addresses: &[&str]) {
        let mut members = program.peers().members(role);
        let expected = members.wait_for(|roster| {
            roster.members.iter().map(|member| member.address.as_str()).eq(addresses.iter().copied())
        });
        let deadline = Duration::from_secs(60);
        let seen = tokio::time::timeout(deadline, expected).await.map(|seen| seen.map(|_| ()));
        assert!(
            matches!(seen, Ok(Ok(()))),
            "{role}: {addresses:?} / {:?}",
            program.peers().members(role).borrow()
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_starts_without_etcd_and_joins_when_it_comes() {
        let mut cluster = test_kit::EtcdCluster::start(1);
        cluster.kill(0);
        let etcd = format!("--etcd.endpoints={}", cluster.endpoints().join(","));
        let flags = ["sample", "--web.listen-address=127.0.0.1:0", "--cluster.peer=ingester=h:1", &etcd];
        let arguments = Arguments::try_parse_from(flags).expect("known flags");
        let members = checked::<Sample>(&arguments, BTreeMap::new())
            .map_err(|faults| faults.join(", "))
            .expect("good")
            .members;
        let program = single::<Sample>(SampleConfig::default(), members, &arguments).await;
        let (program, stopper) = (program.expect("put together"), Stopper::default());
        let running = program.start(stopper.clone(), Reload::new()).await.expect("started");
        assert!(running.readiness().is_ready(), "nothing waits for etcd");
        reached_at(&running, Role::Ingester, &["h:1"]).await;
        reached_at(&running, Role::Querier, &[]).await;

        cluster.start_again(0);
        let web = running.address("web").expect("bound").to_string();
        reached_at(&running, Role::Querier, &[&web]).await;
        reached_at(&running, Role::Ingester, &[]).await;

        // Its lease is lost; the member answers, and so it never leaves the list.
        let store = crate::etcd::coordinator(arguments.etcd().expect("no fault").expect("named"));
        let leased = async || store.list("members/querier/live/").await.expect("listed").entries.pop();
        let before = leased().await.expect("there").lease;
        let mut own = running.peers().members(Role::Querier);
        own.mark_unchanged();
        assert_eq!(cluster.revoke_all_leases(), 1);
        while leased().await.is_none_or(|entry| entry.lease == before) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!own.has_changed().expect("followed"), "{:?}", own.borrow());

        stopper.stop();
        running.wait().await.expect("stopped in order");
        assert_eq!(store.list("").await.expect("listed").entries, [], "nothing stays of who leaves in order");
    }

    #[tokio::test]
    async fn signals_reload_and_stop() {
        let stopper = Stopper::default();
        let (wishes, mut reload) = Reload::new();
        let raise = |signal| kill_process(getpid(), signal).expect("raised");
        let story = async {
            raise(Signal::HUP);
            reload.wished().await;
            raise(Signal::TERM);
            stopper.asked(1).await;
            raise(Signal::INT);
            stopper.asked(2).await;
        };
        tokio::select! {
            // First, so that nothing is raised before somebody listens.
            biased;
            refused = deliver_signals(stopper.clone(), wishes) => panic!("{refused:?}"),
            () = story => {}
        }
    }
}
