//! What a service is handed instead of globals.

use std::sync::Arc;

use coordination::{Coordinator, Role};
use model::Clock;

use crate::tasks::Failures;
use crate::{Metrics, Peers, Readiness, Reload, Shutdown, Stopper, Tasks};

/// Everything outside itself that a service may use. Clones share all of it.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Tells the time.
    pub clock: Clock,
    /// Where the service registers its metrics.
    pub metrics: Metrics,
    /// The name under which it is a member, the same after a restart.
    pub member_name: String,
    /// Where others reach it.
    pub address: String,
    /// How it reaches other roles.
    pub peers: Peers,
    /// What it agrees on with others.
    pub coordinator: Arc<dyn Coordinator>,
    /// How it starts background work.
    pub tasks: Tasks,
    /// What keeps the program from being ready.
    pub readiness: Readiness,
    /// Tells when this service is to stop; the same that `run` gets.
    pub shutdown: Shutdown,
    /// Tells when files are to be read again.
    pub reload: Reload,
    /// Stops the program (`/-/quit`).
    pub stopper: Stopper,
}

impl Environment {
    /// Makes an environment that stands alone, for tests of one service: nothing is registered anywhere, peers are
    /// found through `coordinator`, and the shutdown never comes unless the caller puts one of his own in.
    #[must_use]
    pub fn alone(role: Role, clock: Clock, coordinator: Arc<dyn Coordinator>) -> Self {
        let tasks = Tasks::new(role.as_str(), Failures::default());
        let (trigger, shutdown) = Shutdown::new();
        let (sender, reload) = Reload::new();
        let kept = tasks.clone();
        // Dropped triggers count as a stop; this one lives as long as the tasks' own runtime.
        kept.spawn("environment", async move {
            let _kept = (trigger, sender);
            std::future::pending().await
        });
        Self {
            clock,
            metrics: Metrics::default(),
            member_name: role.to_string(),
            address: crate::in_process_address(role),
            peers: Peers::new(coordinator.clone(), tasks.clone()),
            coordinator,
            tasks,
            readiness: Readiness::default(),
            shutdown,
            reload,
            stopper: Stopper::default(),
        }
    }
}
