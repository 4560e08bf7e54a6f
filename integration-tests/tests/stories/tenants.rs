//! Two tenants with equal series never see each other: in queries, labels, `/federate`, the table.

use std::fs;

use integration_tests::{Http, Kind, Server, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;
use serde_json::json;

use crate::ledger;

const TENANTS: [(&str, f64); 2] = [("team-a", 1.5), ("team-b", 2.5)];

fn series(pairs: &[(&str, &str)], t: i64, value: f64) -> SeriesOut {
    let labels = Labels::from_pairs(pairs.iter().copied());
    SeriesOut { labels, floats: vec![(Timestamp(t), value)], ..SeriesOut::default() }
}

/// What a client of the API sees of everything that was written.
fn seen(http: &Http, at: i64) -> (Vec<f64>, Vec<String>, Vec<String>, usize, String) {
    let answer = promql::instant(http, "shared", at);
    let values = answer.series.iter().flat_map(|s| s.floats.iter().map(|(_, value)| *value)).collect();
    let (start, end) = (promql::seconds(at - 60_000), promql::seconds(at + 60_000));
    let window = [("start", start.as_str()), ("end", end.as_str())];
    let list = |path: &str| -> Vec<String> {
        let form = [window[0], window[1], ("match[]", "{job=\"app\"}")];
        serde_json::from_value(http.get(path, &form).data()).expect("a list of names")
    };
    let count = http
        .get("/api/v1/series", &[window[0], window[1], ("match[]", "{job=\"app\"}")])
        .data()
        .as_array()
        .map_or(0, Vec::len);
    let federated = http.get("/federate", &[("match[]", "{job=\"app\"}")]).body;
    (values, list("/api/v1/labels"), list("/api/v1/label/owner/values"), count, federated)
}

#[test]
fn equal_series_stay_apart() {
    let mut server = Server::start(Kind::Tributary, "");
    let t = now_ms() - 5_000;
    for (tenant, value) in TENANTS {
        let own_label = format!("only_{}", tenant.replace('-', "_"));
        let request = [
            series(&[("__name__", "shared"), ("job", "app"), ("instance", "i")], t, value),
            series(&[("__name__", "owned"), ("job", "app"), ("owner", tenant), (&own_label, "x")], t, value),
        ];
        let reply = write(&server.http().tenant(tenant), &request).expect("an answer");
        assert_eq!(reply.status, 204, "{}", reply.body);
    }
    let check = |server: &Server| {
        for (tenant, value) in TENANTS {
            let (values, names, owners, count, federated) = seen(&server.http().tenant(tenant), t + 1);
            assert_eq!(values, [value], "{tenant}");
            let own_label = format!("only_{}", tenant.replace('-', "_"));
            assert_eq!(names, ["__name__", "instance", "job", own_label.as_str(), "owner"], "{tenant}");
            assert_eq!((owners, count), (vec![tenant.to_owned()], 2), "{tenant}");
            let want = format!(
                "# TYPE owned untyped\nowned{{job=\"app\",{own_label}=\"x\",owner=\"{tenant}\",instance=\"\"}} {value} {t}\n\
                 # TYPE shared untyped\nshared{{instance=\"i\",job=\"app\"}} {value} {t}\n"
            );
            assert_eq!(federated, want, "{tenant}");
        }
        for nobody in [server.http(), server.http().tenant("team-c")] {
            let (values, names, owners, count, federated) = seen(&nobody, t + 1);
            assert_eq!(
                (values.len(), names.len(), owners.len(), count, federated.as_str()),
                (0, 0, 0, 0, "")
            );
        }
    };
    check(&server);
    server.flush();
    check(&server);
    server.restart();
    check(&server);

    let refused = server.http().tenant("../team-a").get("/api/v1/query", &[("query", "shared")]);
    assert_eq!((refused.status, &refused.json()["errorType"]), (400, &json!("bad_data")), "{}", refused.body);

    server.stop();
    for (tenant, _) in TENANTS {
        let partition = server.table().join(format!("tenant={tenant}"));
        assert!(
            fs::read_dir(&partition).is_ok_and(|mut days| days.next().is_some()),
            "{}",
            partition.display()
        );
    }
    let table = ledger::read_table(&server).floats;
    let shared: Vec<_> = table
        .iter()
        .filter(|((_, labels, _), _)| labels.contains("\"shared\""))
        .map(|((tenant, _, time), bits)| (tenant.as_str(), *time, bits.map(f64::from_bits)))
        .collect();
    assert_eq!(shared, TENANTS.map(|(tenant, value)| (tenant, t, Some(value))));
}
