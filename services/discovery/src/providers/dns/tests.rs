//! The provider against a name server that answers from a table.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::{Message, MessageType};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SRV, TXT};
use hickory_resolver::proto::serialize::binary::BinDecodable as _;
use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::*;

/// What a name server knows: records by name; other names do not exist, and some are trouble.
type Table = Arc<Mutex<BTreeMap<&'static str, Answer>>>;

#[derive(Clone)]
enum Answer {
    Records(Vec<RData>),
    Code(ResponseCode),
}

struct NameServer {
    address: SocketAddr,
    table: Table,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    async fn start(table: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, table).await
    }

    async fn start_on(host: Ipv4Addr, table: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let socket = UdpSocket::bind((host, 0)).await.expect("bound");
        let address = socket.local_addr().expect("address");
        let table: Table = Arc::new(Mutex::new(table.into_iter().collect()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (known, log) = (table.clone(), asked.clone());
        #[expect(clippy::disallowed_methods, reason = "a test's own task, ended with it")]
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(query) = Message::from_bytes(&buffer[..length]) else { continue };
                let name = query.queries[0].name().to_string();
                log.lock().push(name.clone());
                let answer = known.lock().get(name.as_str()).cloned();
                let reply = reply(&query, answer).to_vec().expect("encoded");
                socket.send_to(&reply, from).await.expect("sent");
            }
        });
        Self { address, table, asked, task }
    }

    fn set(&self, name: &'static str, answer: Answer) {
        self.table.lock().insert(name, answer);
    }
}

fn reply(query: &Message, answer: Option<Answer>) -> Message {
    let question = &query.queries[0];
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = ResponseCode::NoError;
    match answer {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some(Answer::Code(code)) => reply.metadata.response_code = code,
        Some(Answer::Records(records)) => {
            reply.answers = records
                .into_iter()
                .map(|data| Record::from_rdata(question.name().clone(), 60, data))
                .collect();
        }
    }
    reply
}

fn name(text: &str) -> Name {
    Name::from_utf8(text).expect("a name")
}

fn servers(addresses: &[SocketAddr], search: &[&str], ndots: usize) -> NameServers {
    let server = |address: &SocketAddr| {
        let mut udp = ConnectionConfig::udp();
        udp.port = address.port();
        NameServerConfig::new(address.ip(), true, vec![udp])
    };
    let config = ResolverConfig::from_parts(
        None,
        search.iter().map(|domain| name(domain)).collect(),
        addresses.iter().map(server).collect(),
    );
    let mut options = ResolverOpts::default();
    (options.ndots, options.attempts) = (ndots, 1);
    NameServers::new(config, options).expect("made")
}

fn provider(record: DnsRecord, names: &[&str]) -> DnsProvider {
    DnsProvider {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        record,
        port: 9100,
        refresh_interval: std::time::Duration::from_secs(30),
    }
}

async fn targets(server: &NameServer, record: DnsRecord, name: &str) -> Vec<String> {
    let mut groups = BTreeMap::new();
    let servers = Ok(servers(&[server.address], &[], 1));
    refresh(&provider(record, &[name]), &servers, &mut groups, &Metrics::default()).await;
    let group = &groups[name];
    assert_eq!((group.source.as_str(), group.labels.is_empty()), (name, true));
    group.targets.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn each_kind_of_record_has_its_labels() {
    let v6 = "2001:db8::7".parse().expect("an address");
    let server = NameServer::start([
        (
            "_web._tcp.example.org.",
            Answer::Records(vec![
                RData::SRV(SRV::new(0, 5, 8080, name("a.example.org."))),
                RData::SRV(SRV::new(1, 5, 8081, name("b.example.org."))),
            ]),
        ),
        (
            "v4.example.org.",
            Answer::Records(vec![RData::A(A::new(192, 0, 2, 1)), RData::A(A::new(192, 0, 2, 2))]),
        ),
        ("v6.example.org.", Answer::Records(vec![RData::AAAA(AAAA(v6))])),
        ("mx.example.org.", Answer::Records(vec![RData::MX(MX::new(10, name("mail.example.org.")))])),
        ("ns.example.org.", Answer::Records(vec![RData::NS(NS(name("ns1.example.org.")))])),
    ])
    .await;
    for (record, of, expected) in [
        (
            DnsRecord::Srv,
            "_web._tcp.example.org",
            vec![
                r#"{__address__="a.example.org:8080", __meta_dns_name="_web._tcp.example.org", __meta_dns_srv_record_port="8080", __meta_dns_srv_record_target="a.example.org."}"#,
                r#"{__address__="b.example.org:8081", __meta_dns_name="_web._tcp.example.org", __meta_dns_srv_record_port="8081", __meta_dns_srv_record_target="b.example.org."}"#,
            ],
        ),
        (
            DnsRecord::A,
            "v4.example.org.",
            vec![
                r#"{__address__="192.0.2.1:9100", __meta_dns_name="v4.example.org."}"#,
                r#"{__address__="192.0.2.2:9100", __meta_dns_name="v4.example.org."}"#,
            ],
        ),
        (
            DnsRecord::Aaaa,
            "v6.example.org",
            vec![r#"{__address__="[2001:db8::7]:9100", __meta_dns_name="v6.example.org"}"#],
        ),
        (
            DnsRecord::Mx,
            "mx.example.org",
            vec![
                r#"{__address__="mail.example.org:9100", __meta_dns_mx_record_target="mail.example.org.", __meta_dns_name="mx.example.org"}"#,
            ],
        ),
        (
            DnsRecord::Ns,
            "ns.example.org",
            vec![
                r#"{__address__="ns1.example.org:9100", __meta_dns_name="ns.example.org", __meta_dns_ns_record_target="ns1.example.org."}"#,
            ],
        ),
    ] {
        assert_eq!(targets(&server, record, of).await, expected, "{of}");
    }
}

#[test]
fn records_that_make_no_target_are_left_out() {
    let record = |data| Record::from_rdata(name("x."), 60, data);
    let records = [
        record(RData::CNAME(CNAME(name("y.")))),
        record(RData::TXT(TXT::new(vec!["text".to_owned()]))),
        record(RData::A(A::new(192, 0, 2, 1))),
    ];
    assert_eq!(group("x", 80, &records).targets.len(), 1);
}

#[tokio::test]
async fn names_are_tried_in_the_order_of_the_search_list() {
    let server =
        NameServer::start([("x.two.test.", Answer::Records(vec![RData::A(A::new(192, 0, 2, 9))]))]).await;
    let found = servers(&[server.address], &["one.test.", "two.test."], 1).look_up("x", RecordType::A).await;
    assert_eq!(found.expect("found").len(), 1);
    assert_eq!(*server.asked.lock(), ["x.one.test.", "x.two.test."]);
    for (of, ndots, expected) in [
        ("x", 1, vec!["x.one.test.", "x.two.test.", "x."]),
        ("a.b", 1, vec!["a.b.", "a.b.one.test.", "a.b.two.test."]),
        ("a.b", 5, vec!["a.b.one.test.", "a.b.two.test.", "a.b."]),
        ("a.b.", 5, vec!["a.b."]),
    ] {
        let variants = servers(&[server.address], &["one.test.", "two.test."], ndots).variants(of);
        let texts: Vec<String> = variants.expect("names").iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected, "{of} {ndots}");
    }
}

#[tokio::test]
async fn what_cannot_be_known_keeps_the_last_targets_and_what_is_gone_has_none() {
    let one = Answer::Records(vec![RData::A(A::new(192, 0, 2, 1))]);
    let server = NameServer::start([("up.test.", one.clone()), ("flaky.test.", one.clone())]).await;
    let (metrics, mut groups) = (Metrics::default(), BTreeMap::new());
    let provider = provider(DnsRecord::A, &["up.test", "flaky.test"]);
    let asked = || Ok(servers(&[server.address], &["search.test."], 1));
    refresh(&provider, &asked(), &mut groups, &metrics).await;
    let counts = |groups: &BTreeMap<String, TargetGroup>| -> Vec<(String, usize)> {
        groups.iter().map(|(name, group)| (name.clone(), group.targets.len())).collect()
    };
    let expected = |flaky, up| vec![("flaky.test".to_owned(), flaky), ("up.test".to_owned(), up)];
    assert_eq!(counts(&groups), expected(1, 1));

    server.set("flaky.test.", Answer::Code(ResponseCode::ServFail));
    server.set("up.test.", Answer::Code(ResponseCode::NXDomain));
    refresh(&provider, &asked(), &mut groups, &metrics).await;
    assert_eq!(counts(&groups), expected(1, 0));
    server.set("flaky.test.", Answer::Records(Vec::new()));
    refresh(&provider, &asked(), &mut groups, &metrics).await;
    assert_eq!(counts(&groups), expected(0, 0), "a name without such records");
    refresh(&provider, &Err("could not load resolv.conf".to_owned()), &mut groups, &metrics).await;
    assert_eq!((metrics.dns_lookups.get(), metrics.dns_lookup_failures.get()), (8, 3));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let bad = NameServer::start([("x.test.", Answer::Code(ResponseCode::Refused))]).await;
    let records = vec![RData::A(A::new(192, 0, 2, 1))];
    // Name servers are told apart by their addresses, as in resolv.conf, where they have no ports.
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let good = NameServer::start_on(other, [("x.test.", Answer::Records(records))]).await;
    let both = servers(&[bad.address, good.address], &[], 1);
    assert_eq!(both.look_up("x.test", RecordType::A).await.expect("found").len(), 1);
    let alone = servers(&[bad.address], &[], 1);
    assert_eq!(
        alone.look_up("x.test", RecordType::A).await.expect_err("refused"),
        r#"could not resolve "x.test": all servers responded with errors to at least one search domain"#
    );
}
