//! Where the programs lie that tests run, and which ports they may have.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports are taken from below the range that the kernel hands out to outgoing connections, so that none of those
/// takes a port between the look and the server's bind.
const PORTS: std::ops::Range<u16> = 15_000..31_000;

/// Cargo's target folder: the test runs from `<target>/<profile>/deps/`.
///
/// # Panics
/// When the test binary was moved away from there.
#[must_use]
pub fn target_folder() -> PathBuf {
    profile_folder().parent().expect("a profile lies in the target folder").to_path_buf()
}

/// The folder of the binaries that were built along with the test.
///
/// # Panics
/// As [`target_folder`].
#[must_use]
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(2).expect("the test lies in <target>/<profile>/deps").to_path_buf()
}

/// A part that `integration-tests/parts.sh` unpacks.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn part(path: &str) -> PathBuf {
    let parts = target_folder().join("parts");
    let part = parts.join(path);
    assert!(
        part.exists(),
        "{} is not there: run `make test`, or `integration-tests/parts.sh {} all`",
        part.display(),
        parts.display()
    );
    part
}

/// A loopback port that nobody listens on.
///
/// # Panics
/// When all are taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test binaries that run at the same time start at different places.
    let offset = u16::try_from(process::id().wrapping_mul(61) % u32::from(count)).expect("below a u16");
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + offset.wrapping_add(step) % count;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}
