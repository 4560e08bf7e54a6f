//! Both coordinators against the suite that every implementation passes, and etcd's where it loses members.

mod etcd;

use coordination::{InMemory, conformance};

#[tokio::test(start_paused = true)]
async fn the_in_memory_coordinator_conforms() {
    conformance::run(&InMemory::new(), "suite").await;
}
