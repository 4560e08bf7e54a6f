//! `tributary promql ...`: what promtool's `promql` does without a server.

use std::io::Write as _;
use std::process::ExitCode;

use promql_syntax::{Options, parse_expr};

use crate::flags::PromqlAction;

/// The stack for printing a tree, which the parser bounds.
const STACK_BYTES: usize = 32 << 20;

/// Prints an expression, or to stderr what is wrong with it; status 1 then.
pub(crate) fn run(action: &PromqlAction) -> ExitCode {
    let PromqlAction::Format { query } = action;
    let query = query.clone();
    let work =
        move || parse_expr(&query, &Options::all()).map(|expr| expr.prettify()).map_err(|e| e.to_string());
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
    let formatted = thread
        .map_err(|e| e.to_string())
        .and_then(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    // Nobody is left to be told of a closed stdout or stderr.
    match formatted {
        Ok(text) => {
            drop(writeln!(std::io::stdout(), "{text}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}
