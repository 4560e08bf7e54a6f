use std::sync::atomic::AtomicU32;

use super::*;
use crate::table::Error;
use crate::testing::run;

#[derive(Debug, PartialEq, Eq)]
struct Value(u32, usize);

impl Weighed for Value {
    fn bytes(&self) -> usize {
        self.1
    }
}

const VALUE_BYTES: usize = 1_000;

fn shelf(entries: usize) -> Arc<Shelf<u32, Value>> {
    let bytes_max = entries * (VALUE_BYTES + ENTRY_BYTES);
    Shelf::new(&Arc::new(Room { bytes_max, ..Room::default() }))
}

async fn get(shelf: &Arc<Shelf<u32, Value>>, keys: &[u32]) -> Vec<u32> {
    let read = async |keys: Vec<u32>| Ok(keys.into_iter().map(|k| Value(k, VALUE_BYTES)).collect());
    shelf.get(keys, read).await.expect("read").iter().map(|v| v.0).collect()
}

fn counts(shelf: &Shelf<u32, Value>) -> (u64, u64, usize) {
    let room = &shelf.room;
    let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
    (count(&room.hits), count(&room.misses), room.bytes.load(Ordering::Relaxed))
}

#[test]
fn the_least_used_make_room() {
    run(async {
        let shelf = shelf(3);
        assert_eq!(get(&shelf, &[1, 2, 3]).await, [1, 2, 3]);
        assert_eq!(counts(&shelf), (0, 3, 3 * (VALUE_BYTES + ENTRY_BYTES)));
        assert_eq!(get(&shelf, &[3, 1]).await, [3, 1]);
        assert_eq!(counts(&shelf).0, 2);
        // 2 was not asked for again.
        assert_eq!(get(&shelf, &[4]).await, [4]);
        assert_eq!(counts(&shelf), (2, 4, 3 * (VALUE_BYTES + ENTRY_BYTES)));
        assert_eq!(get(&shelf, &[1, 3, 4]).await, [1, 3, 4]);
        assert_eq!(counts(&shelf).1, 4);
        get(&shelf, &[2]).await;
        assert_eq!(counts(&shelf), (5, 5, 3 * (VALUE_BYTES + ENTRY_BYTES)));
        for key in 0..100 {
            get(&shelf, &[key]).await;
            assert!(counts(&shelf).2 <= 3 * (VALUE_BYTES + ENTRY_BYTES));
            assert!(shelf.slots.lock().len() <= 3);
        }
    });
}

#[test]
fn without_room_everything_is_read_and_nothing_kept() {
    run(async {
        let shelf = shelf(0);
        for _ in 0..2 {
            assert_eq!(get(&shelf, &[1, 2]).await, [1, 2]);
        }
        assert_eq!(counts(&shelf), (0, 4, 0));
        assert_eq!(shelf.slots.lock().len(), 0);
    });
}

/// Many ask for overlapping keys at once; each key is read once.
#[test]
fn one_reads_and_the_others_wait() {
    run(async {
        let (shelf, reads) = (shelf(100), Arc::new(AtomicU32::new(0)));
        let ask = |first: u32| {
            let (shelf, reads) = (Arc::clone(&shelf), Arc::clone(&reads));
            async move {
                let keys: Vec<u32> = (first..first + 10).rev().collect();
                let read = |keys: Vec<u32>| {
                    let reads = Arc::clone(&reads);
                    async move {
                        reads.fetch_add(u32::try_from(keys.len()).expect("few"), Ordering::Relaxed);
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                        Ok(keys.into_iter().map(|k| Value(k, VALUE_BYTES)).collect())
                    }
                };
                let got = shelf.get(&keys, read).await.expect("read");
                assert_eq!(got.iter().map(|v| v.0).collect::<Vec<_>>(), keys);
            }
        };
        futures::future::join_all((0..20).map(|i| ask(i % 5 * 4))).await;
        assert_eq!(reads.load(Ordering::Relaxed), 26);
        assert_eq!(counts(&shelf).0 + counts(&shelf).1, 200);
    });
}

#[test]
fn a_failure_is_not_remembered_and_the_next_in_line_reads() {
    run(async {
        let shelf = shelf(10);
        let fail = async |_| Err::<Vec<Value>, _>(Error::Invalid("no".to_owned()));
        assert!(shelf.get(&[1], fail).await.is_err());
        assert_eq!(shelf.slots.lock().len(), 0);
        assert_eq!(get(&shelf, &[1]).await, [1]);

        // One who gives up while others wait for him.
        let never = async |_| std::future::pending::<Result<Vec<Value>>>().await;
        let mut given_up = Box::pin(shelf.get(&[2], never));
        assert!(futures::poll!(&mut given_up).is_pending());
        let mut waiting = Box::pin(get(&shelf, &[3, 2]));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(given_up);
        assert_eq!(waiting.await, [3, 2]);
        assert_eq!(get(&shelf, &[2]).await, [2]);
        assert_eq!(shelf.slots.lock().len(), 3);
    });
}

#[test]
fn what_is_cleared_is_counted_no_more() {
    run(async {
        let shelf = shelf(10);
        get(&shelf, &[1, 2]).await;
        let late = |keys: Vec<u32>| {
            shelf.clear();
            async { Ok(keys.into_iter().map(|k| Value(k, VALUE_BYTES)).collect()) }
        };
        // Its shelf was cleared while it was read: it is delivered, and not kept.
        assert_eq!(shelf.get(&[3], late).await.expect("read")[0].0, 3);
        assert_eq!((shelf.slots.lock().len(), counts(&shelf).2), (0, 0));
    });
}
