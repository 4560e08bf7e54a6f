//! Ingesters without a disk: their logs lie in the object store, and what one leaves another takes over.

use integration_tests::{Server, Store, eventually};

use crate::cluster::wait_for_writes;
use crate::ledger::{self, Floats};
use crate::writers::{Writer, while_writing, writers};

/// Waits until a query that takes no partial answer is answered.
pub(crate) fn wait_for_whole_answers(server: &Server) {
    let http = server.http();
    eventually("a strict query is answered", || {
        http.try_get("/api/v1/query", &[("query", "count(ledger)")]).filter(|reply| reply.status == 200)
    });
}

/// The ingester that has taken most, and the other.
fn busiest(server: &mut Server) -> [&'static str; 2] {
    let names = ["ingester-0", "ingester-1"];
    let taken =
        names.map(|name| server.cluster().http(name).metric("prometheus_tsdb_head_samples_appended_total"));
    if taken[0] > taken[1] { names } else { [names[1], names[0]] }
}

/// One of two ingesters dies for good while it holds what is in no file yet.
fn die_for_good(store: Store) -> (Server, Vec<Writer>) {
    let (mut server, clients) = (Server::start_cluster("", store), writers());
    let mut survivor = "";
    while_writing(&mut server, &clients, |server| {
        wait_for_writes(&clients);
        // Some of what it acknowledged is in the table, and some is not.
        server.flush();
        wait_for_writes(&clients);
        let [victim, other] = busiest(server);
        survivor = other;
        server.cluster().kill_9_member(victim);
        wait_for_writes(&clients);
        wait_for_whole_answers(server);
        wait_for_writes(&clients);
    });
    let replayed = server.cluster().http(survivor).metric("ingester_samples_replayed_total");
    assert!(replayed > 0.0, "it took the log over");
    clients.iter().for_each(|client| client.check(&server.http()));
    (server, clients)
}

#[test]
fn what_an_ingester_leaves_in_a_bucket_is_taken_over() {
    let (server, clients) = die_for_good(Store::S3WithLogs);
    server.flush();
    wait_for_whole_answers(&server);
    clients.iter().for_each(|client| client.check(&server.http()));
}

#[test]
fn what_an_ingester_leaves_is_in_the_table_once() {
    let (mut server, clients) = die_for_good(Store::FolderWithLogs);
    let want: Floats = clients.iter().flat_map(|client| client.finish(&server.http())).collect();
    server.flush();
    server.stop();
    let got = ledger::read_table_merged(&server).floats;
    assert_eq!(ledger::differences(&got, &want), Vec::<String>::new());
}

#[test]
fn a_cluster_without_disks_survives_a_power_cut() {
    let (mut server, clients) = (Server::start_cluster("", Store::S3WithLogs), writers());
    for _ in 0..2 {
        while_writing(&mut server, &clients, |server| {
            wait_for_writes(&clients);
            server.kill_9();
        });
        server.start_again();
        wait_for_whole_answers(&server);
        clients.iter().for_each(|client| client.check(&server.http()));
    }
}

#[test]
fn an_ingester_that_was_taken_for_dead_begins_another_log() {
    let (mut server, clients) = (Server::start_cluster("", Store::S3WithLogs), writers());
    while_writing(&mut server, &clients, |server| {
        wait_for_writes(&clients);
        let [paused, _] = busiest(server);
        server.cluster().pause(paused);
        wait_for_writes(&clients);
        // Its log is taken over while it stands still.
        wait_for_whole_answers(server);
        server.cluster().resume(paused);
        eventually("it has noticed", || {
            server.whole_output().contains("another log takes the place").then_some(())
        });
        wait_for_writes(&clients);
        wait_for_whole_answers(server);
    });
    clients.iter().for_each(|client| client.check(&server.http()));
    // Until the next log is open, the ended one says that it has ended.
    let http = server.http();
    eventually("everything is flushed", || {
        http.try_post("/api/v1/admin/tsdb/flush", &[], &[]).filter(|reply| reply.status == 200)
    });
    wait_for_whole_answers(&server);
    clients.iter().for_each(|client| client.check(&server.http()));
}
