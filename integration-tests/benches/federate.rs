//! What `/federate` of everything costs: with a million series (`BENCH_SERIES` says otherwise) when its first byte comes,
//! when its last, and what memory it takes; then fifty at a time, one of them read at 10 KiB/s and some left in the middle,
//! while series go on to be written.
//!
//! Runs the release build of `tributary`, one process; prints what it measures beside what is aimed at.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::{Http, Kind, Server, now_ms, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

/// Series of one pod, each of a metric of its own, as the metrics of a service are.
const METRICS: usize = 100;
/// Pods of one write.
const PODS_PER_WRITE: usize = 20;
const WRITERS: usize = 4;
const READERS: usize = 50;
/// Writes a second while federations are under way: a fifth of what one core takes.
const PACE: Duration = Duration::from_millis(50);
const PACED_FOR: Duration = Duration::from_secs(15);
const SELECTION: &str = "/federate?match[]=%7B__name__%3D~%22.%2B%22%7D";

fn main() {
    #[expect(clippy::disallowed_methods, reason = "how much is measured is said by who measures")]
    let wanted = std::env::var("BENCH_SERIES").ok().and_then(|text| text.parse().ok());
    let series: usize = wanted.unwrap_or(1_000_000);
    let server = Server::start(Kind::Tributary, "");
    let process = server.process_id().expect("one process");
    let http = server.http();
    fill(&http, series / METRICS);
    let settled = settle(process);
    say(&format!("series: {series}, resident {:.0} B each", settled as f64 / series as f64));

    // The first answer leaves behind whatever an index needs; the second is measured.
    read(&server.address(), None);
    let before = settle(process);
    let index = before.saturating_sub(settled) as f64 / series as f64;
    say(&format!("index: {index:.0} B resident a series"));
    let watch = Watch::start(process);
    let answer = read(&server.address(), None);
    let peak = watch.stop();
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    say(&format!(
        "one answer: {:.0} MiB, first byte {:.0} ms (aim: 100), last {:.2} s (aim: 15), resident growth {:.0} MiB (aim: 64)",
        mebibytes(answer.bytes),
        answer.first.as_secs_f64() * 1e3,
        answer.last.as_secs_f64(),
        mebibytes(peak.saturating_sub(before)),
    ));

    let alone = paced(&http, &[]);
    let before = settle(process);
    let watch = Watch::start(process);
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let readers = (0..READERS).map(|number| {
        let (address, is_over, answered) = (server.address(), Arc::clone(&is_over), Arc::clone(&answered));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let habit = match number {
                    0 => Habit::Slow,
                    1..5 => Habit::Leaves,
                    _ => Habit::Whole,
                };
                read(&address, Some((habit, &is_over)));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let beside = paced(&http, &readers);
    is_over.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
    let peak = watch.stop();
    say(&format!(
        "{READERS} at a time: {} answers or parts of some in {} s, writes {:.1}/s beside them and {:.1}/s alone ({:.0} %, aim: 80), resident growth {:.0} MiB",
        answered.load(Ordering::Relaxed),
        PACED_FOR.as_secs(),
        beside,
        alone,
        100.0 * beside / alone,
        mebibytes(peak.saturating_sub(before)),
    ));
}

fn say(line: &str) {
    // Nobody is left to be told of a closed stdout.
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn pods(first: usize, count: usize, t: i64) -> Vec<SeriesOut> {
    let series = |pod: usize, metric: usize| {
        let labels = Labels::from_pairs([
            ("__name__", format!("service_{metric:02}_requests_total")),
            ("cluster", "eu-1".to_owned()),
            ("container", "app".to_owned()),
            ("endpoint", "http".to_owned()),
            ("instance", format!("10.{}.{}.{}:8080", pod >> 16, (pod >> 8) & 255, pod & 255)),
            ("job", format!("job-{}", pod % 50)),
            ("namespace", format!("namespace-{}", pod % 20)),
            ("pod", format!("app-{:x}-{pod:05}", pod.wrapping_mul(0x9e37_79b9) & 0xffff_ffff)),
        ]);
        let value = (pod * 7 + metric * 13 + usize::try_from(t / 1000 % 1000).unwrap_or(0)) as f64;
        SeriesOut { labels, floats: vec![(Timestamp(t), value)], ..SeriesOut::default() }
    };
    (first..first + count).flat_map(|pod| (0..METRICS).map(move |metric| series(pod, metric))).collect()
}

fn send(http: &Http, first: usize, count: usize, t: i64) {
    let reply = write(http, &pods(first, count, t)).expect("an answer");
    assert_eq!(reply.status, 204, "{}", reply.body);
}

fn fill(http: &Http, count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(PODS_PER_WRITE, Ordering::Relaxed);
                    if first >= count {
                        return;
                    }
                    send(http, first, PODS_PER_WRITE.min(count - first), now_ms());
                }
            });
        }
    });
}

/// Writes at a pace and says how many writes a second there were.
fn paced(http: &Http, beside: &[thread::JoinHandle<()>]) -> f64 {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < PACED_FOR {
        assert!(beside.iter().all(|reader| !reader.is_finished()), "a reader gave up");
        send(http, 0, PODS_PER_WRITE, now_ms());
        count += 1;
        thread::sleep((PACE * count).saturating_sub(start.elapsed()));
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

struct Read {
    bytes: usize,
    first: Duration,
    last: Duration,
}

#[derive(Clone, Copy)]
enum Habit {
    Whole,
    /// 10 KiB a second.
    Slow,
    /// Goes after the first mebibyte.
    Leaves,
}

/// Reads an answer over a connection of its own, so that nothing is buffered on the way.
fn read(address: &str, habit: Option<(Habit, &AtomicBool)>) -> Read {
    let mut stream = TcpStream::connect(address).expect("connected");
    let start = Instant::now();
    let request = format!("GET {SELECTION} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asked");
    let mut buffer = vec![0; 256 << 10];
    let (mut bytes, mut first) = (0, None);
    loop {
        let length = match habit {
            Some((Habit::Slow, _)) => {
                thread::sleep(Duration::from_millis(100));
                1 << 10
            }
            _ => buffer.len(),
        };
        let count = stream.read(&mut buffer[..length]).expect("an answer");
        if first.is_none() {
            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..count]));
            first = Some(start.elapsed());
        }
        bytes += count;
        let is_left = matches!(habit, Some((Habit::Leaves, _))) && bytes > 1 << 20;
        let is_over = habit.is_some_and(|(_, is_over)| is_over.load(Ordering::Relaxed));
        if count == 0 || is_left || is_over {
            return Read { bytes, first: first.unwrap_or_default(), last: start.elapsed() };
        }
    }
}

/// Resident bytes of a process.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

/// Waits until the resident size has stopped changing, and returns it.
fn settle(process: u32) -> usize {
    let mut before = 0;
    for _ in 0..20 {
        let now = resident(process);
        if now.abs_diff(before) < 1 << 20 {
            break;
        }
        before = now;
        thread::sleep(Duration::from_secs(1));
    }
    resident(process)
}

/// Follows the resident size.
struct Watch {
    is_over: Arc<AtomicBool>,
    watching: thread::JoinHandle<usize>,
}

impl Watch {
    fn start(process: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let watching = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut peak = 0;
                while !is_over.load(Ordering::Relaxed) {
                    peak = peak.max(resident(process));
                    thread::sleep(Duration::from_millis(10));
                }
                peak
            }
        });
        Self { is_over, watching }
    }

    fn stop(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.watching.join().expect("the watch")
    }
}
