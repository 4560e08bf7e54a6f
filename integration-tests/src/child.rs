//! A process that does not outlive its value.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// Bytes of a log that a failure shows.
const SHOWN_BYTES: usize = 4_000;

/// A running program; its stdout and stderr go to a file.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a program.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let same = file.try_clone().expect("a second handle");
        let process = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(same)
            .spawn()
            .unwrap_or_else(|e| panic!("start {name} ({}): {e}", command.get_program().display()));
        Self { name: name.to_owned(), process, log: log.to_path_buf() }
    }

    /// Waits until `attempt` finds what it looks for.
    ///
    /// # Panics
    /// When the program ends before that, or the deadline passes.
    pub fn wait_for<T>(&mut self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        eventually(&format!("{} {what}; log in {}", self.name, self.log.display()), || {
            if let Some(status) = self.process.try_wait().expect("a child's status") {
                panic!("{} ended ({status}) before: {what}\n{}", self.name, self.output());
            }
            attempt()
        })
    }

    /// Waits until the program ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        eventually(&format!("{} ends", self.name), || self.process.try_wait().expect("a child's status"))
    }

    /// Asks the program to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not, or not with success.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{} stopped with {status}\n{}", self.name, self.output());
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops the program's clock.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets the paused program go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).unwrap_or_else(|e| panic!("signal {}: {e}", self.name));
    }

    /// How long the program has kept processors busy, in seconds.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        // proc(5): the name is in parentheses; user and system time are the 14th and 15th field.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace().skip(11).take(2);
        let ticks: f64 = fields.map(|field| field.parse::<f64>().expect("ticks")).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// Ends the program at once, as a crash does.
    pub fn kill_9(&mut self) {
        // Fails only when the process has ended already.
        drop(self.process.kill());
        self.process.wait().expect("a child's status");
    }

    /// Does something, and returns by how many bytes the program's memory grew at most meanwhile.
    ///
    /// # Panics
    /// When the program does not run.
    pub fn growth_during(&self, work: impl FnOnce()) -> u64 {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        // Lets the peak begin anew at what is in use.
        fs::write(folder.join("clear_refs"), "5").expect("the program runs");
        let peak = || {
            let status = fs::read_to_string(folder.join("status")).expect("the program runs");
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
            kib << 10
        };
        let before = peak();
        work();
        // The kernel's counts are off by some pages.
        peak().saturating_sub(before)
    }

    /// The end of what the program printed.
    #[must_use]
    pub fn output(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let start = text.char_indices().rev().nth(SHOWN_BYTES).map_or(0, |(at, _)| at);
        text[start..].to_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_9();
    }
}
