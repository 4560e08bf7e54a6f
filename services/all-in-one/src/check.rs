//! `tributary check ...`: what promtool's `check` does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use service_runtime::WebConfig;

use crate::flags::{Check, What};
use crate::rule_files;

/// How long a server may take to answer, as promtool has it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest answer that is printed.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Checks what it is told to and prints what is wrong; status 1 when anything is.
pub(crate) fn run(check: &Check) -> ExitCode {
    let is_good = match &check.what {
        What::Rules(rules) => return rule_files::check(rules),
        What::Config { files } => config(files),
        What::WebConfig { files } => web_config(files),
        What::Healthy(server) => server_answers(&server.url, "/-/healthy"),
        What::Ready(server) => server_answers(&server.url, "/-/ready"),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn config(files: &[String]) -> bool {
    let mut is_good = true;
    for file in files {
        let outcome = discovery::prometheus_config::check_config(file, &BTreeMap::new());
        let text = match &outcome {
            Ok(_) => format!("Checking {file}\n SUCCESS: {file} is valid prometheus config file syntax\n"),
            Err(faults) => {
                let faults: String = faults.iter().map(|f| format!("  FAILED: {f}\n")).collect();
                format!("Checking {file}\n{faults}")
            }
        };
        is_good &= outcome.is_ok();
        // Nobody is left to be told of a closed stdout.
        drop(std::io::stdout().write_all(text.as_bytes()));
    }
    is_good
}

fn web_config(files: &[PathBuf]) -> bool {
    let mut is_good = true;
    for file in files {
        let outcome = WebConfig::load(file);
        let text = match &outcome {
            Ok(_) => format!("{} SUCCESS\n", file.display()),
            Err(fault) => format!("{} FAILED: {fault}\n", file.display()),
        };
        is_good &= outcome.is_ok();
        // Where promtool prints both; nobody is left to be told of a closed stderr.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
    is_good
}

/// Asks a server; health checks of containers without a shell do.
fn server_answers(url: &str, path: &str) -> bool {
    let outcome = ask(url, path);
    let text = match &outcome {
        Ok(answer) => format!("  SUCCESS:  {answer}\n"),
        Err(fault) => format!("{fault}\n"),
    };
    // Where promtool prints both; nobody is left to be told of a closed stderr.
    drop(std::io::stderr().write_all(text.as_bytes()));
    outcome.is_ok()
}

fn ask(url: &str, path: &str) -> Result<String, String> {
    let scheme = if url.contains("://") { "" } else { "http://" };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // The question is whether this very server answers.
        .proxy(None)
        .timeout_global(Some(ANSWER_TIMEOUT))
        .build()
        .into();
    let answer = agent.get(format!("{scheme}{url}{path}")).call();
    let mut answer = answer.map_err(|error| format!("GET {scheme}{url}{path}: {error}"))?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(format!("check failed: URL={scheme}{url}, status={status}"));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
    body.map_err(|error| format!("GET {scheme}{url}{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that gives one answer, and returns what it was asked.
    fn once(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut head = [0; 1024];
            let length = stream.read(&mut head).expect("a request");
            stream.write_all(answer.as_bytes()).expect("answered");
            String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned()
        });
        (address, serving)
    }

    #[test]
    fn a_server_is_ready_when_it_says_so() {
        let (address, asked) = once("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nReady.");
        assert_eq!(ask(&format!("http://{address}"), "/-/ready"), Ok("Ready.".to_owned()));
        assert_eq!(asked.join().expect("served"), "GET /-/ready HTTP/1.1");
    }

    #[test]
    fn any_other_answer_or_none_is_a_fault() {
        let (address, asked) = once("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        let fault = format!("check failed: URL=http://{address}, status=503");
        assert_eq!(ask(&address, "/-/healthy"), Err(fault));
        assert_eq!(asked.join().expect("served"), "GET /-/healthy HTTP/1.1");
        // Nobody listens there any more.
        let fault = ask(&address, "/-/healthy").expect_err("no answer");
        assert!(fault.starts_with(&format!("GET http://{address}/-/healthy: ")), "{fault}");
    }
}
