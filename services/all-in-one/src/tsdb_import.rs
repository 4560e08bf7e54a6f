//! `tributary tsdb create-blocks-from openmetrics` and `tributary tsdb import`: flags in, days out, progress on stderr.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use backfill::{ImportedDay, Phase, Progress, Summary};
use model::{Clock, Tenant};
use service_runtime::{ConfigBytes, Overrides, read_config};
use tsdb::import::{ImportOptions, Importer};
use tsdb::table::Table;

use crate::flags::{ImportFormat, ImportTarget, TsdbAction};

/// Threads for requests to the store; what is computed stays on the one that imports.
const WORKERS: usize = 2;
/// How often a terminal is told of progress.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// How often something else is.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Characters of the bar.
const BAR_WIDTH: usize = 30;

/// Imports what the flags say; status 1 when that fails.
pub(crate) fn run(action: &TsdbAction) -> ExitCode {
    let (target, path) = match action {
        TsdbAction::CreateBlocksFrom { format: ImportFormat::Openmetrics { output, .. }, target } => {
            (target, output)
        }
        TsdbAction::Import { path, target, .. } => (target, path),
    };
    let screen = Screen::new(target);
    match import(action, target, path.as_deref(), &screen) {
        Ok(summary) => {
            screen.close(&summary);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            screen.complain(&fault);
            ExitCode::FAILURE
        }
    }
}

fn import(
    action: &TsdbAction,
    target: &ImportTarget,
    path: Option<&Path>,
    screen: &Screen,
) -> Result<Summary, String> {
    let config = config(target, path).map_err(|faults| faults.join("\n"))?;
    let tenant = Tenant::new(&target.tenant).map_err(|e| format!("--tenant: {e}"))?;
    let location = config.storage.location(&config.path).map_err(|faults| faults.join("\n"))?;
    let options = ImportOptions {
        tenant,
        memory_bytes_max: usize::try_from(target.memory_max.0).unwrap_or(usize::MAX),
        scratch: target.scratch.clone().unwrap_or(config.path),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.map_err(|e| format!("start: {e}"))?;
    let opened = runtime.block_on(async {
        let table = Table::open_in(&location, Clock::System).await?;
        Importer::new(table, options).await
    });
    let mut importer = opened.map_err(|e| e.to_string())?;
    let progress = Progress::default();
    watched(&progress, screen, || {
        let mut report = |day: &ImportedDay| screen.day(day);
        let done = match action {
            TsdbAction::CreateBlocksFrom { format: ImportFormat::Openmetrics { input, .. }, .. } => {
                backfill::import_open_metrics(input, &mut importer, &progress, &mut report)
            }
            TsdbAction::Import { directory, skip_damaged, .. } => {
                let mut damage = |error| {
                    if !*skip_damaged {
                        return Err(error);
                    }
                    screen.complain(&format!("passed over: {error}"));
                    Ok(())
                };
                backfill::import_directory(directory, &mut importer, &progress, &mut report, &mut damage)
            }
        };
        done.map_err(|error| match error.kind() {
            fault::Kind::Corrupt if matches!(error, backfill::Error::Directory(_)) => {
                format!("{error}\n--skip-damaged imports the rest")
            }
            _ => error.to_string(),
        })
    })
}

/// An ingester's own settings, which say where its table lies.
fn config(target: &ImportTarget, path: Option<&Path>) -> Result<ingester::Config, Vec<String>> {
    let text = match &target.config {
        Some(file) => std::fs::read_to_string(file).map_err(|e| vec![format!("{}: {e}", file.display())])?,
        None => String::new(),
    };
    let overrides = Overrides::of_process(target.storage_url.clone(), std::collections::BTreeMap::new());
    let mut config: ingester::Config = read_config(&text, &overrides)?;
    if let Some(path) = path {
        config.path = path.join("tributary");
    }
    Ok(config)
}

/// Shows how far something is while it runs, and how far it was when it had done its work.
fn watched<T, E>(progress: &Progress, screen: &Screen, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let is_over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            loop {
                thread::park_timeout(screen.interval());
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                screen.progress(progress, false);
            }
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        done
    });
    if done.is_ok() {
        screen.progress(progress, true);
    }
    done
}

/// What a person sees: days on stdout, and on stderr a bar that is drawn over again, or plain lines.
struct Screen {
    is_quiet: bool,
    is_terminal: bool,
    is_human: bool,
    since: Instant,
    drawn: Mutex<Drawn>,
}

#[derive(Default)]
struct Drawn {
    has_header: bool,
    /// What is written next takes its line.
    has_bar: bool,
}

impl Screen {
    fn new(target: &ImportTarget) -> Self {
        Self {
            is_quiet: target.quiet,
            is_terminal: std::io::stderr().is_terminal(),
            is_human: target.human_readable,
            since: Instant::now(),
            drawn: Mutex::default(),
        }
    }

    fn interval(&self) -> Duration {
        if self.is_terminal { BAR_INTERVAL } else { LINE_INTERVAL }
    }

    /// Writes to both streams under one lock; nobody is left to be told of a closed one.
    fn write(&self, out: impl FnOnce(&mut Drawn) -> (String, String)) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if std::mem::take(&mut drawn.has_bar) { "\r\x1b[K" } else { "" };
        let (stdout, stderr) = out(&mut drawn);
        drop(write!(std::io::stderr(), "{clear}"));
        drop(std::io::stdout().write_all(stdout.as_bytes()));
        drop(std::io::stdout().flush());
        drop(std::io::stderr().write_all(stderr.as_bytes()));
    }

    /// The last line stays.
    fn progress(&self, progress: &Progress, is_last: bool) {
        if self.is_quiet {
            return;
        }
        self.write(|drawn| {
            let samples = progress.samples();
            let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let line =
                line(progress.phase(), progress.done(), samples, samples.saturating_mul(1000) / millis);
            drawn.has_bar = self.is_terminal && !is_last;
            (String::new(), if drawn.has_bar { line } else { format!("{line}\n") })
        });
    }

    fn day(&self, day: &ImportedDay) {
        if self.is_quiet {
            return;
        }
        self.write(|drawn| {
            let header =
                if std::mem::replace(&mut drawn.has_header, true) { String::new() } else { self.header() };
            (format!("{header}{}", self.row(day)), String::new())
        });
    }

    fn header(&self) -> String {
        self.columns(&[
            "DAY",
            "MIN TIME",
            "MAX TIME",
            "DURATION",
            "NUM SAMPLES",
            "NUM FILES",
            "NUM SERIES",
            "SIZE",
        ])
    }

    fn row(&self, day: &ImportedDay) -> String {
        // As of a block: the end is not part of it.
        let (start, end) = (day.min_time, day.max_time.saturating_add(1));
        let (start_text, end_text, size) = if self.is_human {
            (
                human_time(&day.day, start),
                human_time(&day.day, day.max_time),
                ConfigBytes(day.bytes).to_string(),
            )
        } else {
            (start.to_string(), end.to_string(), day.bytes.to_string())
        };
        let duration = Duration::from_millis(u64::try_from(end.saturating_sub(start)).unwrap_or(0));
        self.columns(&[
            &day.day,
            &start_text,
            &end_text,
            &model::time::PrometheusDuration(duration).to_string(),
            &day.samples.to_string(),
            &day.files.to_string(),
            &day.series.to_string(),
            &size,
        ])
    }

    fn columns(&self, columns: &[&str; 8]) -> String {
        let time = if self.is_human { 26 } else { 15 };
        let widths = [12, time, time, 18, 13, 11, 12];
        let padded = columns.iter().zip(widths).map(|(text, width)| format!("{text:<width$}"));
        format!("{}{}\n", padded.collect::<String>(), columns[7])
    }

    fn complain(&self, fault: &str) {
        self.write(|_| (String::new(), format!("{fault}\n")));
    }

    fn close(&self, summary: &Summary) {
        let Summary { imported, passed_over } = summary;
        let already = match passed_over {
            0 => String::new(),
            n => format!(", {n} were in the table already"),
        };
        let text = if self.is_quiet { String::new() } else { format!("{imported} days imported{already}\n") };
        self.write(|_| (String::new(), text));
    }
}

/// An instant of a day, to the second.
fn human_time(day: &str, millis: i64) -> String {
    let second = millis.div_euclid(1000).rem_euclid(86_400);
    format!("{day} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

/// One line of progress.
fn line(phase: Phase, (done, total): (u64, u64), samples: u64, rate: u64) -> String {
    let (what, count) = match phase {
        Phase::ReadText => ("reading", sizes(done, total)),
        Phase::ReadHead => ("reading the head", sizes(done, total)),
        Phase::WriteDays => ("writing", format!("{done} of {total} days")),
    };
    let filled = match total {
        0 => 0,
        _ => usize::try_from(done.min(total).saturating_mul(BAR_WIDTH as u64) / total).unwrap_or(0),
    };
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(BAR_WIDTH - filled));
    format!("{what} [{bar}] {count}, {samples} samples read, {rate}/s")
}

fn sizes(done: u64, total: u64) -> String {
    let megabytes = |bytes: u64| bytes >> 20;
    if total == 0 {
        format!("{} MiB", megabytes(done))
    } else {
        format!("{} of {} MiB", megabytes(done), megabytes(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_it_is() {
        for (phase, done, want) in [
            (
                Phase::ReadText,
                (5 << 20, 10 << 20),
                "reading [###############---------------] 5 of 10 MiB, 7 samples read, 2/s",
            ),
            (
                Phase::ReadText,
                (5 << 20, 0),
                "reading [------------------------------] 5 MiB, 7 samples read, 2/s",
            ),
            (
                Phase::WriteDays,
                (3, 3),
                "writing [##############################] 3 of 3 days, 7 samples read, 2/s",
            ),
            // A file that grew meanwhile.
            (
                Phase::ReadHead,
                (9 << 20, 3 << 20),
                "reading the head [##############################] 9 of 3 MiB, 7 samples read, 2/s",
            ),
        ] {
            assert_eq!(line(phase, done, 7, 2), want);
        }
    }
}
