use super::*;
use crate::log::reader::{self, Summary};
use crate::log::record::{self, Record};
use crate::log::segment;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// A payload of records that forget these groups: the smallest records there are.
fn payload(groups: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in groups {
        segment::put_record(&mut out, |out| record::put_forget(out, *group));
    }
    out
}

fn new_log(wal: &Path, file_bytes_max: u64) -> LocalLog {
    LocalLog::create(wal, Ulid(7), 99, file_bytes_max).expect("a new log")
}

fn append(log: &mut LocalLog, groups: &[u64]) -> u64 {
    log.append(Role::Records, &payload(groups), Timestamp(0)).expect("written")
}

/// Reads the groups that the log forgets, with their segments.
fn read(wal: &Path, from: u64) -> Result<(Vec<(u64, u64)>, Summary)> {
    let mut found = Vec::new();
    let summary = reader::read(&wal.join(Ulid(7).to_string()), Ulid(7), from, |seq, record| {
        if let Record::Forget { group } = record {
            found.push((seq, group));
        }
        Ok(())
    })?;
    Ok((found, summary))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn log_file(wal: &Path, first: u64) -> PathBuf {
    file_path(&wal.join(Ulid(7).to_string()), first)
}

#[test]
fn what_was_written_is_read_in_order() {
    let wal = folder();
    let mut log = new_log(wal.path(), FILE_BYTES_MAX);
    assert_eq!(append(&mut log, &[10, 11]), 1);
    log.start_part();
    assert_eq!(append(&mut log, &[20]), 2);
    assert_eq!(append(&mut log, &[30]), 3);
    let (found, summary) = read(wal.path(), 0).expect("intact");
    assert_eq!(found, [(1, 10), (1, 11), (2, 20), (3, 30)]);
    assert_eq!(summary.last.map(|h| (h.seq, h.acknowledged)), Some((3, 2)));
    assert!(summary.torn.is_none() && summary.damages.is_empty() && !summary.is_sealed);
    assert_eq!(read(wal.path(), 3).expect("intact").0, [(3, 30)]);
    assert!(log_file(wal.path(), 2).exists(), "a new file was begun");
}

#[test]
fn a_torn_end_at_any_byte_is_cut_off_and_sealed() {
    let source = folder();
    let mut log = new_log(source.path(), FILE_BYTES_MAX);
    append(&mut log, &[1]);
    append(&mut log, &[2, 3]);
    let bytes = fs::read(log_file(source.path(), 0)).expect("readable");
    let ends: Vec<(usize, &[(u64, u64)])> = vec![
        (HEADER_BYTES, &[]),
        (2 * HEADER_BYTES + payload(&[1]).len(), &[(1, 1)]),
        (bytes.len(), &[(1, 1), (2, 2), (2, 3)]),
    ];
    for length in 0..=bytes.len() {
        let wal = folder();
        let folder = wal.path().join(Ulid(7).to_string());
        fs::create_dir(&folder).expect("created");
        fs::write(file_path(&folder, 0), &bytes[..length]).expect("written");
        let whole = ends.iter().rev().find(|(end, _)| *end <= length);
        let (found, summary) = read(wal.path(), 0).expect("a torn end is no error");
        assert_eq!(found, whole.map_or(&[][..], |w| w.1), "cut at {length}");
        assert_eq!(summary.damages, Vec::<String>::new());
        let Some(last) = summary.last else {
            assert!(length < HEADER_BYTES);
            continue;
        };
        assert_eq!(summary.torn.is_some(), whole.is_some_and(|w| w.0 < length), "cut at {length}");
        seal(&folder, Ulid(7), &last, summary.torn.as_ref()).expect("sealed");
        let (again, summary) = read(wal.path(), 0).expect("sealed");
        assert_eq!(again, found);
        assert!(summary.is_sealed && summary.torn.is_none() && summary.damages.is_empty(), "cut at {length}");
        assert_eq!(summary.last_data_seq(), last.seq);
    }
}

#[test]
fn any_flipped_bit_costs_at_most_its_own_segment_and_is_named() {
    let source = folder();
    let mut log = new_log(source.path(), FILE_BYTES_MAX);
    for group in 1..=4 {
        append(&mut log, &[group]);
    }
    let bytes = fs::read(log_file(source.path(), 0)).expect("readable");
    let segment_bytes = HEADER_BYTES + payload(&[1]).len();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let wal = folder();
        let folder = wal.path().join(Ulid(7).to_string());
        fs::create_dir(&folder).expect("created");
        fs::write(file_path(&folder, 0), &damaged).expect("written");
        let hit = (bit / 8).checked_sub(HEADER_BYTES).map_or(0, |at| 1 + (at / segment_bytes) as u64);
        let wanted: Vec<(u64, u64)> = (1..=4).filter(|s| *s != hit).map(|s| (s, s)).collect();
        let (found, summary) = read(wal.path(), 0).expect("damage is passed over");
        assert_eq!(found, wanted, "bit {bit}");
        // In the last segment nothing valid follows: a torn end, as far as anybody can tell.
        assert_eq!(summary.damages.is_empty(), hit == 4, "bit {bit}: {:?}", summary.damages);
        assert_eq!(summary.unread_end.is_empty(), hit != 4, "bit {bit}: {:?}", summary.unread_end);
    }
}

#[test]
fn a_missing_file_is_an_error_unless_it_is_not_needed() {
    let wal = folder();
    let mut log = new_log(wal.path(), 1);
    for group in 1..=4 {
        append(&mut log, &[group]);
    }
    fs::remove_file(log_file(wal.path(), 2)).expect("removed");
    let error = read(wal.path(), 0).expect_err("a gap");
    assert!(matches!(error, Error::Gap { from: 2, to: 2, acknowledged: 3, .. }), "{error}");
    assert_eq!(error.kind(), fault::Kind::Corrupt);
    assert_eq!(read(wal.path(), 3).expect("below what is needed").0, [(3, 3), (4, 4)]);
    log.set_floor(3);
    append(&mut log, &[5]);
    assert_eq!(read(wal.path(), 0).expect("below the floor").0.len(), 4);
}

#[test]
fn a_file_cut_short_in_the_middle_is_a_gap() {
    let wal = folder();
    let mut log = new_log(wal.path(), FILE_BYTES_MAX);
    for group in 1..=3 {
        append(&mut log, &[group]);
    }
    log.start_part();
    append(&mut log, &[4]);
    let first = OpenOptions::new().write(true).open(log_file(wal.path(), 0)).expect("opened");
    let segment_bytes = (HEADER_BYTES + payload(&[1]).len()) as u64;
    first.set_len(HEADER_BYTES as u64 + 3 * segment_bytes - 1).expect("cut");
    assert_eq!(read(wal.path(), 0).expect("one damaged segment").0, [(1, 1), (2, 2), (4, 4)]);
    first.set_len(HEADER_BYTES as u64 + segment_bytes + 80).expect("cut");
    assert!(matches!(read(wal.path(), 0), Err(Error::Gap { from: 2, to: 3, .. })));
}

#[test]
fn nothing_is_written_after_a_failure_or_a_seal() {
    let wal = folder();
    let mut log = new_log(wal.path(), FILE_BYTES_MAX);
    append(&mut log, &[1]);
    // A file that cannot be written to stands for a disk that fails.
    log.file = File::open(log_file(wal.path(), 0)).expect("opened for reading");
    let failed = log.append(Role::Records, &payload(&[2]), Timestamp(0)).expect_err("not writable");
    assert_eq!(failed.kind(), fault::Kind::Unavailable);
    log.file = OpenOptions::new().append(true).open(log_file(wal.path(), 0)).expect("opened");
    let ended = log.append(Role::Records, &payload(&[2]), Timestamp(0)).expect_err("ended for good");
    assert!(matches!(ended, Error::LogEnded { .. }), "{ended}");
    assert_eq!(read(wal.path(), 0).expect("intact").0, [(1, 1)]);

    let wal = folder();
    let mut log = new_log(wal.path(), FILE_BYTES_MAX);
    log.append(Role::Seal, &[], Timestamp(0)).expect("sealed");
    assert!(matches!(log.append(Role::Records, &[], Timestamp(0)), Err(Error::LogEnded { .. })));
}

#[test]
fn what_follows_a_seal_is_void() {
    let wal = folder();
    let mut log = new_log(wal.path(), FILE_BYTES_MAX);
    append(&mut log, &[1]);
    log.append(Role::Seal, &[], Timestamp(0)).expect("sealed");
    log.ended = None;
    append(&mut log, &[2]);
    let (found, summary) = read(wal.path(), 0).expect("intact");
    assert_eq!(found, [(1, 1)]);
    assert!(summary.is_sealed);
}

#[test]
fn files_go_only_when_a_durable_floor_is_old_enough() {
    let wal = folder();
    let mut log = new_log(wal.path(), 1);
    for group in 1..=3 {
        append(&mut log, &[group]);
    }
    let kept_after = |log: &mut LocalLog, before| {
        log.remove_unneeded(Timestamp(before)).expect("removed");
        (0..=4).filter(|first| log_file(wal.path(), *first).exists()).collect::<Vec<u64>>()
    };
    log.set_floor(3);
    assert_eq!(kept_after(&mut log, 1000), [0, 1, 2, 3], "no header says so yet");
    log.append(Role::Records, &[], Timestamp(500)).expect("written");
    assert_eq!(kept_after(&mut log, 499), [0, 1, 2, 3, 4], "not old enough");
    assert_eq!(kept_after(&mut log, 500), [3, 4]);
    assert_eq!(read(wal.path(), 0).expect("what is gone is not needed").0, [(3, 3)]);
}

#[test]
fn a_folder_is_locked_by_one_holder() {
    let wal = folder();
    let held = lock(wal.path()).expect("free");
    assert!(matches!(lock(wal.path()), Err(Error::Locked(_))));
    drop(held);
    assert!(lock(wal.path()).is_ok());
}
