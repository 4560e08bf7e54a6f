//! `tributary check ...`: what promtool's `check` does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use crate::flags::{Check, What};

/// Checks files and prints what is wrong with them; status 1 when anything is.
pub(crate) fn run(check: &Check) -> ExitCode {
    let What::Config { files } = &check.what;
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
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
