//! A simulation of ingesters that share a table: writers, flushes, adoption, compaction, retention and clean-up, with
//! processes that die or lose power and requests that are lost, delayed, refused or answered by nobody. What happens
//! follows from a seed; a model knows what was acknowledged.
//!
//! One thing is begun after the other, and what is held back on its way is let go later, so that a seed tells nearly the
//! same story each time. Only threads that the engine itself runs are beyond its reach.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, Tenant, Timestamp};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tsdb::faults::Fault;
use tsdb::merge::merge_rows;
use tsdb::table::{SelectLimits, Snapshot, Table, TableOptions};
use tsdb::{
    Appended, GroupId, LogOwner, LogStore, Maintenance, MaintenanceOptions, ObjectLogOptions, ObjectLogs,
    Storage, StorageOptions,
};

use crate::link::{Kind, Link, Random, STAYS_MS, Sea, now};
use crate::support::{MINUTE, START, Samples, declaration, flatten, head_rows, labels, samples};
use crate::{count_in_files, is_soak, power};

/// Steps of a simulation.
const STEPS: usize = 70;
/// Seeds of a run, beside those that are kept.
const SEEDS: u64 = 40;
const SEEDS_OF_SOAK: u64 = 1_500;
/// How many seeds a planted fault may take to be found.
const SEEDS_OF_FAULT: u64 = 300;
/// How long what may be held back is waited for.
const ROUNDS_HELD: usize = 20;
/// Members of each group.
const MEMBERS: usize = 2;
const HOUR: Duration = Duration::from_secs(3600);
/// What is kept where anything is dropped.
const RETENTION: Duration = Duration::from_secs(6 * 3600);

/// Faults are planted in all of the process: whoever simulates without any waits for who does.
pub(crate) static PLANTING: RwLock<()> = RwLock::new(());

/// A broken promise.
type Broken = String;

/// One process.
struct Node {
    name: String,
    link: Arc<Link>,
    storage: Arc<Storage>,
    logs: Option<Arc<ObjectLogs>>,
    maintenance: Arc<Maintenance>,
    groups: Vec<(String, GroupId)>,
    folder: Arc<tempfile::TempDir>,
}

/// One that is dead, until it starts again.
struct Dead {
    name: String,
    folder: Arc<tempfile::TempDir>,
}

/// An append whose answer is not known yet.
struct Pending {
    keys: Vec<(String, i64)>,
    answer: JoinHandle<tsdb::Result<Appended>>,
}

/// Somebody who reads slowly.
struct SlowReader {
    since: i64,
    snapshot: Arc<Snapshot>,
    found: Samples,
}

struct Simulation {
    random: Random,
    clock: Clock,
    sea: Arc<Sea>,
    has_object_logs: bool,
    retention: Option<Duration>,
    nodes: Vec<Node>,
    dead: Vec<Dead>,
    /// Links of the dead, on which something may still be on its way.
    wrecks: Vec<Arc<Link>>,
    pending: Vec<Pending>,
    tasks: Vec<JoinHandle<()>>,
    readers: Vec<SlowReader>,
    /// Never fails.
    own_link: Arc<Link>,
    own_table: Arc<Table>,
    /// What was sent, by series and time; and what of it was acknowledged.
    sent: BTreeMap<(String, i64), u64>,
    acknowledged: BTreeMap<(String, i64), ()>,
    last_time: i64,
    links: u64,
    story: String,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let clock = Clock::fixed(Timestamp(START));
        let sea = Sea::new(clock.clone());
        let own_link = Link::new(&sea, seed, 0);
        let own_table = open_table(&own_link, &clock).await.expect("a table");
        let has_object_logs = random.below(3) > 0;
        let retention = (random.below(4) == 0).then_some(RETENTION);
        let mut simulation = Self {
            random,
            clock,
            sea,
            has_object_logs,
            retention,
            nodes: Vec::new(),
            dead: Vec::new(),
            wrecks: Vec::new(),
            pending: Vec::new(),
            tasks: Vec::new(),
            readers: Vec::new(),
            own_link,
            own_table,
            sent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            last_time: START,
            links: seed.wrapping_mul(1_000),
            story: format!("object logs {has_object_logs}, retention {retention:?}\n"),
        };
        let names = if has_object_logs { &["a", "b", "c"][..] } else { &["a", "b"] };
        for name in names {
            let folder = Arc::new(tempfile::tempdir().expect("a folder"));
            simulation.start(Dead { name: (*name).to_owned(), folder }).await;
        }
        simulation
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let minutes = (now(&self.clock) - START) / MINUTE;
        writeln!(self.story, "{minutes:>5} min: {what}").expect("a text");
    }

    /// Starts a process on what it left.
    async fn start(&mut self, dead: Dead) {
        let Dead { name, folder } = dead;
        self.links += 1;
        let percent = usize::try_from(self.random.below(5)).expect("small");
        let link = Link::new(&self.sea, self.links, percent);
        for _ in 0..100 {
            match drive(self.open(&name, &link, &folder)).await {
                Ok(node) => {
                    self.tell(format_args!("{name} starts with log {}", node.storage.log()));
                    self.nodes.push(node);
                    return;
                }
                Err(error) if matches!(error, tsdb::Error::Gap { .. }) => {
                    self.tell(format_args!("{name} cannot start: {error}"));
                    break;
                }
                Err(_) => {}
            }
        }
        self.tell(format_args!("{name} does not start"));
        self.dead.push(Dead { name, folder });
    }

    async fn open(
        &self,
        name: &str,
        link: &Arc<Link>,
        folder: &Arc<tempfile::TempDir>,
    ) -> tsdb::Result<Node> {
        let table = open_table(link, &self.clock).await?;
        let mut options = StorageOptions {
            commit_delay: Duration::ZERO,
            out_of_order_window: Duration::from_secs(600),
            lookback: Duration::from_secs(60),
            head_retention: Duration::from_secs(660),
            file_bytes_max: 700,
            ..StorageOptions::new(folder.path(), Arc::clone(&table), self.clock.clone(), Handle::current())
        };
        let mut logs = None;
        if self.has_object_logs {
            let owner = LogOwner { ingester: name.to_owned(), address: name.to_owned() };
            let object_options = ObjectLogOptions {
                seal_retention: HOUR,
                ..ObjectLogOptions::new(owner, self.clock.clone(), Handle::current())
            };
            let store: Arc<dyn ObjectStore> = link.clone();
            let opened = ObjectLogs::on(store, &Path::default(), object_options).await?;
            options.logs = LogStore::Objects(Arc::clone(&opened));
            options.commits_in_flight_max = 4;
            logs = Some(opened);
        }
        let storage = Storage::open(options).await?;
        let maintenance_options =
            MaintenanceOptions { retention_time: self.retention, ..MaintenanceOptions::default() };
        let maintenance = Maintenance::new(Arc::clone(&table), maintenance_options);
        let (name, link, folder) = (name.to_owned(), Arc::clone(link), Arc::clone(folder));
        Ok(Node { name, link, storage, logs, maintenance, groups: Vec::new(), folder })
    }

    fn pick_node(&mut self) -> Option<usize> {
        let count = self.nodes.len() as u64;
        (count > 0).then(|| usize::try_from(self.random.below(count)).expect("small"))
    }

    /// Sends samples of one group, without waiting.
    fn send(&mut self, node: usize) {
        let group_name = format!("g{}", self.random.below(3));
        let lag = i64::try_from(self.random.below(30_000)).expect("small");
        let time = (now(&self.clock) - lag).max(self.last_time + 1);
        self.last_time = time;
        let storage = Arc::clone(&self.nodes[node].storage);
        let known = self.nodes[node].groups.iter().find(|(name, _)| *name == group_name).map(|(_, id)| *id);
        let group = match known {
            Some(group) => group,
            None => {
                let Ok(group) = storage.declare(declaration(&group_name, MEMBERS)) else { return };
                self.nodes[node].groups.push((group_name.clone(), group));
                group
            }
        };
        let value = |member: usize| ((time - START) * 10 + member as i64) as f64 / 4.0;
        let values: Vec<f64> = (0..MEMBERS).map(value).collect();
        let key = |member| (labels(&group_name, member).to_string(), time);
        let keys: Vec<_> = (0..MEMBERS).map(key).collect();
        self.sent.extend(keys.iter().cloned().zip(values.iter().map(|x| x.to_bits())));
        let appended = storage.append(vec![samples(group, time, &values)], true);
        let answer = Handle::current().spawn(appended);
        self.pending.push(Pending { keys, answer });
    }

    /// Takes the answers that are there.
    async fn take_answers(&mut self, waits: bool) {
        let mut left = Vec::new();
        for Pending { keys, answer } in std::mem::take(&mut self.pending) {
            if !waits && !answer.is_finished() {
                left.push(Pending { keys, answer });
                continue;
            }
            if let Ok(Ok(appended)) = drive(answer).await
                && appended.refused.is_empty()
            {
                self.acknowledged.extend(keys.into_iter().map(|key| (key, ())));
            }
        }
        self.pending = left;
    }

    /// Sends, and waits for the answers.
    async fn append(&mut self, node: usize) {
        for _ in 0..=self.random.below(3) {
            self.send(node);
        }
        let mut rounds = 0;
        while self.pending.iter().any(|p| !p.answer.is_finished()) && rounds < ROUNDS_HELD {
            pump(1).await;
            rounds += usize::from(self.is_holding());
        }
        self.take_answers(false).await;
    }

    /// A process dies, by itself or with its machine.
    async fn crash(&mut self, node: usize) {
        self.take_answers(false).await;
        let node = self.nodes.swap_remove(node);
        node.link.cut();
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let loses_power = self.random.below(2) == 0;
        if loses_power {
            power::cut(node.folder.path(), folder.path(), &mut self.random);
        } else {
            power::kill(node.folder.path(), folder.path());
        }
        self.tell(format_args!(
            "{} dies, power cut {loses_power}, {} on their way",
            node.name,
            node.link.held()
        ));
        self.wrecks.push(Arc::clone(&node.link));
        self.dead.push(Dead { name: node.name.clone(), folder });
        // What it was asked is never answered, whatever its remains do.
        for pending in self.pending.drain(..) {
            pending.answer.abort();
        }
        drop(node);
    }

    /// Whoever has lost its log begins another life, as a service does.
    async fn replace_ended(&mut self) {
        for at in (0..self.nodes.len()).rev() {
            let failed = self.nodes[at].storage.failed();
            if futures::FutureExt::now_or_never(failed).is_some() {
                let node = self.nodes.swap_remove(at);
                self.tell(format_args!("{} has lost its log", node.name));
                let dead = Dead { name: node.name.clone(), folder: Arc::clone(&node.folder) };
                node.link.release();
                drop(node);
                self.start(dead).await;
            }
        }
    }

    /// Time passes; what is under way may come as late as it likes.
    fn pass(&mut self, minutes: u64) {
        let ms = i64::try_from(minutes).expect("small") * MINUTE;
        self.clock.set(self.clock.now().add_ms(ms));
    }

    /// Begins something and lets it get as far as it gets: to its end, unless something is held back.
    async fn begin<E: std::fmt::Display>(
        &mut self,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let failure = Arc::new(parking_lot::Mutex::new(None));
        let told = Arc::clone(&failure);
        let task = Handle::current().spawn(async move {
            if let Err(error) = work.await {
                *told.lock() = Some(error.to_string());
            }
        });
        let mut rounds = 0;
        while !task.is_finished() && rounds < ROUNDS_HELD {
            pump(1).await;
            rounds += usize::from(self.is_holding());
        }
        self.tasks.push(task);
        self.tasks.retain(|task| !task.is_finished());
        let failure = failure.lock().take();
        if let Some(error) = failure {
            self.tell(format_args!("that fails: {error}"));
        }
    }

    /// Whether something is held back somewhere.
    fn is_holding(&self) -> bool {
        self.nodes.iter().map(|node| &node.link).chain(&self.wrecks).any(|link| link.held() > 0)
    }

    /// Takes over a log, whoever writes it.
    async fn adopt(&mut self, node: usize, is_held: bool) {
        let Some(logs) = self.nodes[node].logs.clone() else { return };
        let storage = Arc::clone(&self.nodes[node].storage);
        let Ok(listed) = drive(logs.list()).await else { return };
        let others: Vec<String> =
            listed.into_iter().filter(|log| **log != **storage.log() && !logs.is_spare(log)).collect();
        let Some(log) = self.random.pick(&others).cloned() else { return };
        let name = self.nodes[node].name.clone();
        self.tell(format_args!("{name} takes over {log}, held {is_held}"));
        if is_held {
            self.nodes[node].link.hold(Kind::Segment, 1);
        }
        self.begin(async move { storage.adopt(&logs, &log).await.map(drop) }).await;
    }

    async fn flush(&mut self, node: usize, held: Option<Kind>) {
        let (storage, name) = (Arc::clone(&self.nodes[node].storage), self.nodes[node].name.clone());
        self.tell(format_args!("{name} flushes, held {held:?}"));
        if let Some(kind) = held {
            self.nodes[node].link.hold(kind, 1);
        }
        self.begin(async move { storage.flush().await.map(drop) }).await;
    }

    async fn compact(&mut self, node: usize, held: Option<Kind>) {
        let (maintenance, name) = (Arc::clone(&self.nodes[node].maintenance), self.nodes[node].name.clone());
        let is_forced = self.random.below(3) > 0;
        self.tell(format_args!("{name} looks after the table, forced {is_forced}, held {held:?}"));
        if let Some(kind) = held {
            self.nodes[node].link.hold(kind, 1);
        }
        self.begin(async move { maintenance.look(&|_| true, is_forced).await.map(drop) }).await;
    }

    async fn step(&mut self) -> Result<(), Broken> {
        self.replace_ended().await;
        let Some(node) = self.pick_node() else {
            let Some(dead) = self.dead.pop() else { return Ok(()) };
            self.start(dead).await;
            return Ok(());
        };
        match self.random.below(100) {
            0..=27 => self.append(node).await,
            28..=36 => self.flush(node, None).await,
            37..=46 => {
                let minutes = 1 + self.random.below(20);
                self.pass(minutes);
            }
            47..=51 => {
                let minutes = 61 + self.random.below(30);
                self.pass(minutes);
            }
            52..=58 => {
                let storage = Arc::clone(&self.nodes[node].storage);
                let name = self.nodes[node].name.clone();
                self.tell(format_args!("{name} keeps itself in order"));
                self.begin(async move { storage.maintain_once().await }).await;
                // Segments are removed in the background.
                pump(5).await;
            }
            59..=64 => self.compact(node, None).await,
            65..=71 => self.crash(node).await,
            72..=77 => {
                if let Some(dead) = self.dead.pop() {
                    self.start(dead).await;
                }
            }
            78..=81 => self.adopt(node, false).await,
            82..=86 => {
                // Segments overtake each other.
                self.nodes[node].link.hold(Kind::Segment, 1);
                for _ in 0..3 {
                    self.send(node);
                    pump(4).await;
                }
                self.take_answers(false).await;
            }
            87..=88 => self.flush(node, Some(Kind::Commit)).await,
            89 => self.flush(node, Some(Kind::File)).await,
            90..=91 => {
                self.compact(node, Some(Kind::File)).await;
                // Another is faster.
                if let Some(other) = self.pick_node().filter(|other| *other != node) {
                    self.compact(other, None).await;
                }
            }
            92 => self.compact(node, Some(Kind::Commit)).await,
            93 => self.adopt(node, true).await,
            94..=95 => self.read_slowly().await,
            96..=97 => self.let_go().await,
            _ => self.check_now().await?,
        }
        self.take_answers(false).await;
        self.check_readers().await
    }

    /// What was held back arrives, or does not.
    async fn let_go(&mut self) {
        self.tell(format_args!("what was held back goes on"));
        for link in self.nodes.iter().map(|node| &node.link).chain(&self.wrecks) {
            link.release();
        }
        pump(20).await;
        self.wrecks.retain(|link| link.held() > 0);
    }

    async fn read_slowly(&mut self) {
        let snapshot = self.own_table.snapshot(None).await.expect("a snapshot");
        let found = in_table(&snapshot).await.expect("readable when it is new");
        self.readers.push(SlowReader { since: now(&self.clock), snapshot, found });
    }

    /// Whoever took a snapshot less than an hour ago can read it.
    async fn check_readers(&mut self) -> Result<(), Broken> {
        let time = now(&self.clock);
        self.readers.retain(|reader| time - reader.since < STAYS_MS);
        let Some(reader) = self.readers.first() else { return Ok(()) };
        if self.random.below(4) == 0 {
            let found =
                in_table(&reader.snapshot).await.map_err(|e| format!("a snapshot cannot be read: {e}"))?;
            if found != reader.found {
                return Err("a snapshot has changed".to_owned());
            }
        }
        Ok(())
    }

    /// With everybody alive and nothing on its way, everything acknowledged can be read.
    async fn check_now(&mut self) -> Result<(), Broken> {
        self.let_go().await;
        if !self.dead.is_empty() || !self.wrecks.is_empty() || !self.tasks.is_empty() {
            return Ok(());
        }
        self.take_answers(true).await;
        self.replace_ended().await;
        if !self.dead.is_empty() {
            return Ok(());
        }
        self.check("midway").await
    }

    async fn check(&mut self, when: &str) -> Result<(), Broken> {
        let heads: Vec<_> =
            self.nodes.iter().map(|node| head_rows(&node.storage, &Tenant::default())).collect();
        let snapshot = self.own_table.snapshot(None).await.expect("a snapshot");
        let tenant = Tenant::default();
        let table = drive(snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE))
            .await
            .map_err(|e| format!("{when}: the table cannot be read: {e}"))?;
        let found = flatten(&merge_rows(heads.into_iter().chain([table])).collect::<Vec<_>>());
        self.compare(when, &found)?;
        let hurries = self.sea.hurries();
        if hurries.is_empty() { Ok(()) } else { Err(format!("{when}: {}", hurries.join(", "))) }
    }

    fn compare(&self, when: &str, found: &Samples) -> Result<(), Broken> {
        let kept_since = match self.retention {
            Some(retention) => self.last_time - i64::try_from(retention.as_millis()).expect("hours"),
            None => i64::MIN,
        };
        for (key, ()) in self.acknowledged.iter().filter(|((_, time), ())| *time > kept_since) {
            if found.get(&key.0).and_then(|series| series.get(&key.1)) != self.sent.get(key) {
                return Err(format!("{when}: {key:?} was acknowledged and is not there"));
            }
        }
        for (series, samples) in found {
            for (time, bits) in samples {
                if self.sent.get(&(series.clone(), *time)) != Some(bits) {
                    return Err(format!("{when}: {series} at {time} was never sent like that"));
                }
            }
        }
        Ok(())
    }

    /// Everybody dies, and what they left is put together.
    async fn finish(&mut self) -> Result<(), Broken> {
        for link in self.nodes.iter().map(|node| &node.link) {
            link.heal();
        }
        if self.random.below(2) == 0 {
            self.let_go().await;
            self.take_answers(true).await;
        }
        while !self.nodes.is_empty() {
            self.crash(0).await;
        }
        self.let_go().await;
        pump(ROUNDS_HELD).await;
        // The dead would try for ever.
        self.tasks.drain(..).for_each(|task| task.abort());
        for dead in std::mem::take(&mut self.dead) {
            self.start(dead).await;
        }
        if let Some(dead) = self.dead.first() {
            return Err(format!("{} does not start again", dead.name));
        }
        for node in &self.nodes {
            node.link.heal();
        }
        self.adopt_all().await?;
        self.check("at the end").await?;
        for node in &self.nodes {
            let flushed = drive(node.storage.flush()).await;
            flushed.map_err(|e| format!("{} cannot flush: {e}", node.name))?;
        }
        let snapshot = self.own_table.snapshot(None).await.expect("a snapshot");
        let found = in_table(&snapshot).await.map_err(|e| format!("the table cannot be read: {e}"))?;
        self.compare("in the table", &found)?;
        let distinct: usize = found.values().map(BTreeMap::len).sum();
        let count = count_in_files(&self.own_table, &*self.own_link).await;
        if count != distinct {
            return Err(format!("{count} samples in files, of which {distinct} are distinct"));
        }
        Ok(())
    }

    async fn adopt_all(&mut self) -> Result<(), Broken> {
        let Some(node) = self.nodes.first() else { return Ok(()) };
        let Some(logs) = node.logs.clone() else { return Ok(()) };
        let storage = Arc::clone(&node.storage);
        let own: Vec<String> = self.nodes.iter().map(|node| node.storage.log().to_string()).collect();
        let is_spare =
            |log: &str| self.nodes.iter().any(|n| n.logs.as_ref().is_some_and(|l| l.is_spare(log)));
        pump(20).await;
        for log in drive(logs.list()).await.expect("listed") {
            if own.contains(&log) || is_spare(&log) {
                continue;
            }
            let adopted = drive(storage.adopt(&logs, &log)).await;
            adopted.map_err(|e| format!("log {log} cannot be taken over: {e}"))?;
        }
        Ok(())
    }
}

/// Lets the engine's own threads and tasks get on with what they can.
async fn pump(rounds: usize) {
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_micros(50));
        // The runtime's time does not pass by itself while a thread of it waits for what is held back.
        tokio::time::advance(Duration::from_millis(2)).await;
    }
}

/// Does something to its end.
async fn drive<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    loop {
        if let Some(done) = futures::future::poll_immediate(&mut work).await {
            return done;
        }
        pump(1).await;
    }
}

async fn open_table(link: &Arc<Link>, clock: &Clock) -> tsdb::table::Result<Arc<Table>> {
    let options = TableOptions {
        store: link.clone(),
        prefix: "metrics".into(),
        clock: clock.clone(),
        runtime: Handle::current(),
        request_cost_bytes: 64 << 10,
        cache_bytes: 0,
    };
    Table::open(options).await
}

async fn in_table(snapshot: &Snapshot) -> tsdb::table::Result<Samples> {
    let tenant = Tenant::default();
    let rows = drive(snapshot.select(&tenant, &[], i64::MIN, i64::MAX, SelectLimits::NONE)).await?;
    Ok(flatten(&rows))
}

/// Runs one seed; a broken promise comes with what led to it.
fn simulate(seed: u64) -> Result<(), Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(async {
        let mut simulation = Simulation::new(seed).await;
        let mut outcome = Ok(());
        for _ in 0..STEPS {
            outcome = simulation.step().await;
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            outcome = simulation.finish().await;
        }
        let Simulation { story, .. } = &simulation;
        outcome.map_err(|broken| format!("seed {seed}: {broken}\n{story}"))
    });
    runtime.shutdown_background();
    outcome
}

fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.trim().parse().expect("a seed")).collect()
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_wrong() {
    let _guard = PLANTING.read();
    let more = if is_soak() { SEEDS_OF_SOAK } else { SEEDS };
    let seeds: Vec<u64> = kept_seeds().into_iter().chain(1..=more).collect();
    let broken: Vec<Broken> = seeds.into_iter().filter_map(|seed| simulate(seed).err()).collect();
    assert!(
        broken.is_empty(),
        "{} seeds failed, keep them in seeds.txt:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn every_planted_fault_is_found() {
    let _guard = PLANTING.write();
    let mut unnoticed = Vec::new();
    for fault in Fault::ALL {
        tsdb::faults::plant(Some(fault));
        let broken = |seed| match std::panic::catch_unwind(|| simulate(seed)) {
            Ok(outcome) => outcome.err(),
            Err(_) => Some("it panics".to_owned()),
        };
        let found =
            kept_seeds().into_iter().chain(1..=SEEDS_OF_FAULT).find_map(|seed| Some((seed, broken(seed)?)));
        tsdb::faults::plant(None);
        match found {
            Some((seed, broken)) => {
                println!("{fault:?}: seed {seed}: {}", broken.lines().next().unwrap_or_default());
            }
            None => unnoticed.push(fault),
        }
    }
    assert_eq!(unnoticed, [], "of {} faults", Fault::ALL.len());
}
