//! The in-memory coordinator against the suite that every implementation passes.

use coordination::{InMemory, conformance};

#[tokio::test(start_paused = true)]
async fn the_in_memory_coordinator_conforms() {
    conformance::run(&InMemory::new(), "suite").await;
}
