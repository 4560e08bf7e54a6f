//! What the stories are told with: servers as real processes on free loopback ports, a target whose body the test
//! sets, an Alertmanager, a Kubernetes API server, a remote write client, PromQL answers that can be compared, and
//! containers as the manifests of `deploy/` have them.
//!
//! Invariants:
//! - every process is stopped when its value is dropped, whatever the test did;
//! - every wait has a deadline and says what it waited for;
//! - whatever goes wrong panics with what the server printed: this crate is for tests alone.
//!
//! Deliberately absent: the stories (`tests/stories`), and anything that knows Tributary from inside.

mod alertmanager;
mod child;
mod cluster;
mod compose;
mod container;
mod engine;
mod fixture;
mod http;
mod kube_api;
mod manifests;
mod parts;
pub mod promql;
pub mod promqltest;
mod python;
mod remote_write;
mod role;
mod server;
mod wait;

pub use alertmanager::{Alertmanager, Notice};
pub use child::Child;
pub use cluster::{Cluster, Store};
pub use compose::compose_containers;
pub use container::{Check, Container, Contents, Mount, Runner, Running, build_image, onto_loopback};
pub use engine::Engine;
pub use fixture::Fixture;
pub use http::{Http, Reply};
pub use kube_api::KubeApi;
pub use manifests::{Manifests, Secrets, kubernetes_faults};
pub use parts::{kubectl, node_exporter, promtool, repository};
pub use python::python;
pub use remote_write::{write, write_body, write_v2};
pub use role::Role;
pub use server::{Kind, Server};
pub use test_kit::{EtcdCluster, S3Server, free_port, part, target_folder};
pub use wait::{DEADLINE, eventually, now_ms};
