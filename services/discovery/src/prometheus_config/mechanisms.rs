//! Service discovery: the fields of the 37 mechanisms and what Prometheus checks when it reads them.
//!
//! All of them are read and refused as Prometheus does; which ones Tributary runs is in `typed`.

mod checks;

use model::number::Quoted;

use self::checks::{
    check_aws, check_aws_role, check_azure, check_consul, check_dns, check_docker, check_dockerswarm,
    check_ec2, check_eureka, check_http_url, check_kubernetes, check_kuma, check_marathon, check_openstack,
    check_outscale, check_ovhcloud, check_puppetdb, check_scaleway, check_stackit, check_triton, check_uyuni,
    check_zookeeper, http_only, is_file_pattern, one_of, require, require_role,
};
use super::http::{HTTP, TLS, check_http};
use super::schema::{Default, Field, Kind, Schema, field, no_check};

/// The mechanisms by their key, sorted: the order in which they are printed.
pub(super) static MECHANISMS: [Field; 37] = [
    field("aws_sd_configs", Kind::List(&AWS)),
    field("azure_sd_configs", Kind::List(&AZURE)),
    field("consul_sd_configs", Kind::List(&CONSUL)),
    field("digitalocean_sd_configs", Kind::List(&DIGITALOCEAN)),
    field("dns_sd_configs", Kind::List(&DNS)),
    field("docker_sd_configs", Kind::List(&DOCKER)),
    field("dockerswarm_sd_configs", Kind::List(&DOCKERSWARM)),
    field("ec2_sd_configs", Kind::List(&EC2)),
    field("ecs_sd_configs", Kind::List(&AWS_CLUSTERS)),
    field("elasticache_sd_configs", Kind::List(&AWS_CLUSTERS)),
    field("eureka_sd_configs", Kind::List(&EUREKA)),
    field("file_sd_configs", Kind::List(&FILE)),
    field("gce_sd_configs", Kind::List(&GCE)),
    field("hetzner_sd_configs", Kind::List(&HETZNER)),
    field("http_sd_configs", Kind::List(&HTTP_SD)),
    field("ionos_sd_configs", Kind::List(&IONOS)),
    field("kubernetes_sd_configs", Kind::List(&KUBERNETES)),
    field("kuma_sd_configs", Kind::List(&KUMA)),
    field("lightsail_sd_configs", Kind::List(&LIGHTSAIL)),
    field("linode_sd_configs", Kind::List(&LINODE)),
    field("marathon_sd_configs", Kind::List(&MARATHON)),
    field("msk_sd_configs", Kind::List(&AWS_CLUSTERS)),
    field("nerve_sd_configs", Kind::List(&NERVE)),
    field("nomad_sd_configs", Kind::List(&NOMAD)),
    field("oci_sd_configs", Kind::List(&OCI)),
    field("openstack_sd_configs", Kind::List(&OPENSTACK)),
    field("outscale_sd_configs", Kind::List(&OUTSCALE)),
    field("ovhcloud_sd_configs", Kind::List(&OVHCLOUD)),
    field("puppetdb_sd_configs", Kind::List(&PUPPETDB)),
    field("rds_sd_configs", Kind::List(&AWS_CLUSTERS)),
    field("scaleway_sd_configs", Kind::List(&SCALEWAY)),
    field("serverset_sd_configs", Kind::List(&SERVERSET)),
    field("stackit_sd_configs", Kind::List(&STACKIT)),
    field("static_configs", Kind::List(&GROUP)),
    field("triton_sd_configs", Kind::List(&TRITON)),
    field("uyuni_sd_configs", Kind::List(&UYUNI)),
    field("vultr_sd_configs", Kind::List(&VULTR)),
];

/// A target group, in `static_configs` and in the files of `file_sd_configs`.
pub(super) static GROUP: Schema = Schema {
    name: "struct { Targets []string \"yaml:\\\"targets\\\"\"; Labels model.LabelSet \"yaml:\\\"labels\\\"\" }",
    parts: &[&[field("targets", Kind::Strings).always(), field("labels", Kind::LabelSet)]],
    check: no_check,
};

pub(super) static FILE: Schema = Schema {
    name: "file.plain",
    parts: &[&[field("files", Kind::Files).always(), REFRESH.or(Default::Seconds(300))]],
    check: |file, faults| {
        let files = file.strings("files");
        if files.is_empty() {
            faults.push("file service discovery config must contain at least one path name".to_owned());
        }
        let bad = files.iter().filter(|name| !is_file_pattern(name));
        faults.extend(bad.map(|name| format!("path name {} is not valid for file discovery", Quoted(name))));
    },
};

const REFRESH: Field = field("refresh_interval", Kind::Duration).or(Default::Seconds(60));
const PORT: Field = field("port", Kind::Int).or(Default::Int(80)).always();
const TAG_SEPARATOR: Field = field("tag_separator", Kind::Str).or(Default::Str(","));
const REGION: Field = field("region", Kind::Str).always();

const ENDPOINT: Field = field("endpoint", Kind::Str).always();

/// Keys and whereabouts of an AWS service, behind region and endpoint.
const AWS_ACCESS: [Field; 7] = [
    field("access_key", Kind::Str),
    field("secret_key", Kind::Secret),
    field("profile", Kind::Str),
    field("role_arn", Kind::Str),
    field("external_id", Kind::Str),
    REFRESH,
    PORT,
];

static FILTER: Schema = Schema {
    name: "Filter",
    parts: &[&[field("name", Kind::Str).always(), field("values", Kind::Strings).always()]],
    check: no_check,
};

static AWS: Schema = Schema {
    name: "aws.plain",
    parts: &[
        &[field("role", Kind::Word("aws.Role", check_aws_role)).always(), REGION, ENDPOINT],
        &AWS_ACCESS,
        &[
            field("filters", Kind::List(&FILTER)),
            field("clusters", Kind::Strings),
            field("request_concurrency", Kind::Int),
        ],
        &HTTP,
    ],
    check: |aws, faults| faults.extend(check_aws(aws).err()),
};

static EC2: Schema = Schema {
    name: "aws.plain",
    parts: &[&[ENDPOINT, REGION], &AWS_ACCESS, &[field("filters", Kind::List(&FILTER)).always()], &HTTP],
    check: |ec2, faults| faults.extend(check_ec2(ec2).err()),
};

static LIGHTSAIL: Schema =
    Schema { name: "aws.plain", parts: &[&[ENDPOINT, REGION], &AWS_ACCESS, &HTTP], check: http_only };

/// `ecs`, `elasticache`, `msk` and `rds`.
static AWS_CLUSTERS: Schema = Schema {
    name: "aws.plain",
    parts: &[
        &AWS_ACCESS,
        &[field("clusters", Kind::Strings), field("request_concurrency", Kind::Int).or(Default::Int(10))],
        &HTTP,
    ],
    check: |aws, faults| {
        if aws.int("request_concurrency") <= 0 {
            faults.push(format!(
                "request_concurrency must be positive, got {}",
                aws.int("request_concurrency")
            ));
        }
        http_only(aws, faults);
    },
};

static AZURE: Schema = Schema {
    name: "azure.plain",
    parts: &[
        &[
            field("environment", Kind::Str).or(Default::Str("AzurePublicCloud")),
            PORT,
            field("subscription_id", Kind::Str).always(),
            field("tenant_id", Kind::Str),
            field("client_id", Kind::Str),
            field("client_secret", Kind::Secret),
            REFRESH.or(Default::Seconds(300)),
            field("authentication_method", Kind::Str).or(Default::Str("OAuth")),
            field("resource_group", Kind::Str),
        ],
        &HTTP,
    ],
    check: |azure, faults| faults.extend(check_azure(azure).err()),
};

static CONSUL: Schema = Schema {
    name: "consul.plain",
    parts: &[
        &[
            field("server", Kind::Str).or(Default::Str("localhost:8500")),
            field("path_prefix", Kind::Str),
            field("token", Kind::Secret),
            field("datacenter", Kind::Str),
            field("namespace", Kind::Str),
            field("partition", Kind::Str),
            TAG_SEPARATOR,
            field("scheme", Kind::Str).or(Default::Str("http")),
            field("username", Kind::Str),
            field("password", Kind::Secret),
            field("allow_stale", Kind::Bool).or(Default::Bool(true)).always(),
            REFRESH.or(Default::Seconds(30)),
            field("services", Kind::Strings),
            field("tags", Kind::Strings),
            field("node_meta", Kind::StringMap),
            field("filter", Kind::Str),
            field("health_filter", Kind::Str),
        ],
        &HTTP,
    ],
    check: |consul, faults| faults.extend(check_consul(consul).err()),
};

static DIGITALOCEAN: Schema =
    Schema { name: "digitalocean.plain", parts: &[&[REFRESH, PORT], &HTTP], check: http_only };

static DNS: Schema = Schema {
    name: "dns.plain",
    parts: &[&[
        field("names", Kind::Strings).always(),
        REFRESH.or(Default::Seconds(30)),
        field("type", Kind::Str).or(Default::Str("SRV")).always(),
        field("port", Kind::Int).always(),
    ]],
    check: |dns, faults| faults.extend(check_dns(dns).err()),
};

static DOCKER: Schema = Schema {
    name: "moby.plain",
    parts: &[
        &[
            field("host", Kind::Str).always(),
            PORT,
            field("filters", Kind::List(&FILTER)),
            field("host_networking_host", Kind::Str).or(Default::Str("localhost")).always(),
            REFRESH,
            field("match_first_network", Kind::Bool).or(Default::Bool(true)).always(),
        ],
        &HTTP,
    ],
    check: |docker, faults| faults.extend(check_docker(docker).err()),
};

static DOCKERSWARM: Schema = Schema {
    name: "moby.plain",
    parts: &[
        &[
            field("host", Kind::Str).always(),
            field("role", Kind::Str).always(),
            PORT,
            field("filters", Kind::List(&FILTER)).always(),
            REFRESH,
        ],
        &HTTP,
    ],
    check: |swarm, faults| faults.extend(check_dockerswarm(swarm).err()),
};

static EUREKA: Schema = Schema {
    name: "eureka.plain",
    parts: &[&[field("server", Kind::Str), REFRESH.or(Default::Seconds(30))], &HTTP],
    check: |eureka, faults| faults.extend(check_eureka(eureka).err()),
};

static GCE: Schema = Schema {
    name: "gce.plain",
    parts: &[&[
        field("project", Kind::Str).always(),
        field("zone", Kind::Str).always(),
        field("filter", Kind::Str),
        REFRESH,
        PORT,
        TAG_SEPARATOR,
    ]],
    check: |gce, faults| {
        let needed = [("project", "project"), ("zone", "zone")];
        faults.extend(require(gce, &needed, |what| format!("GCE SD configuration requires a {what}")).err());
    },
};

static HETZNER: Schema = Schema {
    name: "hetzner.plain",
    parts: &[
        &[
            REFRESH,
            PORT,
            field(
                "role",
                Kind::Word("hetzner.Role", |text| one_of(text, &["robot", "hcloud"], "unknown role")),
            )
            .always(),
            field("label_selector", Kind::Str),
        ],
        &HTTP,
    ],
    check: |hetzner, faults| {
        faults.extend(require_role(hetzner, "robot, hcloud").and_then(|()| check_http(hetzner)).err());
    },
};

static HTTP_SD: Schema = Schema {
    name: "http.plain",
    parts: &[&HTTP, &[REFRESH, field("url", Kind::Url).always()]],
    check: |http, faults| faults.extend(check_http_url(http).and_then(|()| check_http(http)).err()),
};

static IONOS: Schema = Schema {
    name: "ionos.plain",
    parts: &[&[field("datacenter_id", Kind::Str).always(), REFRESH, PORT], &HTTP],
    check: |ionos, faults| {
        let needed = [("datacenter_id", "")];
        let checked = require(ionos, &needed, |_| "datacenter id can't be empty".to_owned());
        faults.extend(checked.and_then(|()| check_http(ionos)).err());
    },
};

const K8S_ROLES: [&str; 6] = ["node", "pod", "service", "endpoints", "endpointslice", "ingress"];
const K8S_ROLE: Kind =
    Kind::Word("kubernetes.Role", |text| one_of(text, &K8S_ROLES, "unknown Kubernetes SD role"));

static KUBERNETES: Schema = Schema {
    name: "kubernetes.plain",
    parts: &[
        &[
            field("api_server", Kind::Url),
            field("role", K8S_ROLE).always(),
            field("kubeconfig_file", Kind::File).always(),
        ],
        &HTTP,
        &[
            field("namespaces", Kind::Section(&K8S_NAMESPACES)),
            field("selectors", Kind::List(&K8S_SELECTOR)),
            field("attach_metadata", Kind::Section(&K8S_METADATA)),
        ],
    ],
    check: |kubernetes, faults| faults.extend(check_kubernetes(kubernetes).err()),
};

static K8S_NAMESPACES: Schema = Schema {
    name: "kubernetes.plain",
    parts: &[&[field("own_namespace", Kind::Bool).always(), field("names", Kind::Strings).always()]],
    check: no_check,
};

static K8S_SELECTOR: Schema = Schema {
    name: "kubernetes.SelectorConfig",
    parts: &[&[field("role", K8S_ROLE), field("label", Kind::Str), field("field", Kind::Str)]],
    check: no_check,
};

static K8S_METADATA: Schema = Schema {
    name: "kubernetes.plain",
    parts: &[&[
        field("node", Kind::Bool).always(),
        field("namespace", Kind::Bool),
        field("deployment", Kind::Bool),
        field("job", Kind::Bool),
        field("cronjob", Kind::Bool),
    ]],
    check: no_check,
};

static KUMA: Schema = Schema {
    name: "xds.plain",
    parts: &[
        &HTTP,
        &[
            REFRESH.or(Default::Seconds(30)),
            field("fetch_timeout", Kind::Duration).or(Default::Seconds(120)),
            field("server", Kind::Str),
            field("client_id", Kind::Str),
        ],
    ],
    check: |kuma, faults| faults.extend(check_kuma(kuma).err()),
};

static LINODE: Schema = Schema {
    name: "linode.plain",
    parts: &[&[REFRESH, PORT, TAG_SEPARATOR, field("region", Kind::Str)], &HTTP],
    check: http_only,
};

static MARATHON: Schema = Schema {
    name: "marathon.plain",
    parts: &[
        &[
            field("servers", Kind::Strings),
            REFRESH.or(Default::Seconds(30)),
            field("auth_token", Kind::Secret).always(),
            field("auth_token_file", Kind::File).always(),
        ],
        &HTTP,
    ],
    check: |marathon, faults| faults.extend(check_marathon(marathon).err()),
};

const ZOOKEEPER: [Field; 3] = [
    field("servers", Kind::Strings).always(),
    field("paths", Kind::Strings).always(),
    field("timeout", Kind::Duration).or(Default::Seconds(10)),
];

static NERVE: Schema = Schema {
    name: "zookeeper.plain",
    parts: &[&ZOOKEEPER],
    check: |nerve, faults| faults.extend(check_zookeeper(nerve, "nerve").err()),
};

static SERVERSET: Schema = Schema {
    name: "zookeeper.plain",
    parts: &[&ZOOKEEPER],
    check: |serverset, faults| faults.extend(check_zookeeper(serverset, "serverset").err()),
};

static NOMAD: Schema = Schema {
    name: "nomad.plain",
    parts: &[
        &[
            field("allow_stale", Kind::Bool).or(Default::Bool(true)).always(),
            field("namespace", Kind::Str).or(Default::Str("default")).always(),
            REFRESH.always(),
            field("region", Kind::Str).or(Default::Str("global")).always(),
            field("server", Kind::Str).or(Default::Str("http://localhost:4646")).always(),
            TAG_SEPARATOR,
        ],
        &HTTP,
    ],
    check: |nomad, faults| {
        if nomad.str("server").trim().is_empty() {
            faults.push("nomad SD configuration requires a server address".to_owned());
        }
        http_only(nomad, faults);
    },
};

static OCI: Schema = Schema {
    name: "oci.plain",
    parts: &[
        &[
            field("auth", Kind::Str).or(Default::Str("api_key")),
            REGION,
            field("tenancy", Kind::Str),
            field("user", Kind::Str),
            field("fingerprint", Kind::Str),
            field("key_file", Kind::File),
            field("key_passphrase", Kind::Secret),
            field("compartments", Kind::Strings),
            field("port", Kind::Int).or(Default::Int(9100)).always(),
            REFRESH,
        ],
        &HTTP,
    ],
    check: |oci, faults| {
        let auth = oci.str("auth");
        if !matches!(auth, "api_key" | "instance_principal") {
            faults.push(format!(
                "oci_sd: unknown auth method {}, expected \"api_key\" or \"instance_principal\"",
                Quoted(auth)
            ));
        }
        http_only(oci, faults);
    },
};

static OPENSTACK: Schema = Schema {
    name: "openstack.plain",
    parts: &[&[
        field("identity_endpoint", Kind::Str).always(),
        field("username", Kind::Str).always(),
        field("userid", Kind::Str).always(),
        field("password", Kind::Secret).always(),
        field("project_name", Kind::Str).always(),
        field("project_id", Kind::Str).always(),
        field("domain_name", Kind::Str).always(),
        field("domain_id", Kind::Str).always(),
        field("application_credential_name", Kind::Str),
        field("application_credential_id", Kind::Str),
        field("application_credential_secret", Kind::Secret),
        field(
            "role",
            Kind::Word("openstack.Role", |text| {
                one_of(text, &["hypervisor", "instance", "loadbalancer"], "unknown OpenStack SD role")
            }),
        )
        .always(),
        REGION,
        REFRESH,
        PORT,
        field("all_tenants", Kind::Bool),
        field("tls_config", Kind::Section(&TLS)),
        field("availability", Kind::Str).or(Default::Str("public")),
    ]],
    check: |openstack, faults| faults.extend(check_openstack(openstack).err()),
};

static OUTSCALE: Schema = Schema {
    name: "outscale.plain",
    parts: &[
        &[
            field("endpoint", Kind::Str),
            REGION.or(Default::Str("eu-west-2")),
            field("access_key", Kind::Str).always(),
            field("secret_key", Kind::Secret).always(),
            field("secret_key_file", Kind::File),
            REFRESH,
            PORT,
        ],
        &HTTP,
    ],
    check: |outscale, faults| faults.extend(check_outscale(outscale).err()),
};

static OVHCLOUD: Schema = Schema {
    name: "ovhcloud.plain",
    parts: &[&[
        field("endpoint", Kind::Str).or(Default::Str("ovh-eu")).always(),
        field("application_key", Kind::Str).always(),
        field("application_secret", Kind::Secret).always(),
        field("consumer_key", Kind::Secret).always(),
        REFRESH.always(),
        field("service", Kind::Str).always(),
    ]],
    check: |ovh, faults| faults.extend(check_ovhcloud(ovh).err()),
};

static PUPPETDB: Schema = Schema {
    name: "puppetdb.plain",
    parts: &[
        &HTTP,
        &[
            REFRESH,
            field("url", Kind::Str).always(),
            field("query", Kind::Str).always(),
            field("include_parameters", Kind::Bool).always(),
            PORT,
        ],
    ],
    check: |puppetdb, faults| faults.extend(check_puppetdb(puppetdb).err()),
};

static SCALEWAY: Schema = Schema {
    name: "scaleway.plain",
    parts: &[
        &[
            field("project_id", Kind::Str).always(),
            field("api_url", Kind::Str).or(Default::Str("https://api.scaleway.com")),
            field("zone", Kind::Str).or(Default::Str("fr-par-1")).always(),
            field("access_key", Kind::Str).always(),
            field("secret_key", Kind::Secret).always(),
            field("secret_key_file", Kind::File).always(),
            field("name_filter", Kind::Str),
            field("tags_filter", Kind::Strings),
        ],
        &HTTP,
        &[
            REFRESH.always(),
            PORT,
            field(
                "role",
                Kind::Word("scaleway.role", |text| one_of(text, &["instance", "baremetal"], "unknown role")),
            )
            .always(),
        ],
    ],
    check: |scaleway, faults| faults.extend(check_scaleway(scaleway).err()),
};

static STACKIT: Schema = Schema {
    name: "stackit.plain",
    parts: &[
        &HTTP,
        &[
            REFRESH.always(),
            PORT,
            REGION.or(Default::Str("eu01")),
            field("endpoint", Kind::Str).always(),
            field("project", Kind::Str).always(),
            field("service_account_key", Kind::Secret).always(),
            field("private_key", Kind::Secret).always(),
            field("service_account_key_path", Kind::Str).always(),
            field("private_key_path", Kind::Str).always(),
            field("credentials_file_path", Kind::Str).always(),
        ],
    ],
    check: |stackit, faults| faults.extend(check_stackit(stackit).err()),
};

static TRITON: Schema = Schema {
    name: "triton.plain",
    parts: &[&[
        field("account", Kind::Str).always(),
        field("role", Kind::Str).or(Default::Str("container")).always(),
        field("dns_suffix", Kind::Str).always(),
        field("endpoint", Kind::Str).always(),
        field("groups", Kind::Strings),
        field("port", Kind::Int).or(Default::Int(9163)).always(),
        REFRESH,
        field("tls_config", Kind::Section(&TLS)),
        field("version", Kind::Int).or(Default::Int(1)).always(),
    ]],
    check: |triton, faults| faults.extend(check_triton(triton).err()),
};

static UYUNI: Schema = Schema {
    name: "uyuni.plain",
    parts: &[
        &[
            field("server", Kind::Str).always(),
            field("username", Kind::Str).always(),
            field("password", Kind::Secret).always(),
        ],
        &HTTP,
        &[
            field("entitlement", Kind::Str).or(Default::Str("monitoring_entitled")),
            field("separator", Kind::Str).or(Default::Str(",")),
            REFRESH,
        ],
    ],
    check: |uyuni, faults| faults.extend(check_uyuni(uyuni).err()),
};

static VULTR: Schema = Schema { name: "vultr.plain", parts: &[&[REFRESH, PORT], &HTTP], check: http_only };

/// The HTTP fields alone, to compare with.
static PLAIN_HTTP: Schema = Schema { name: "config.HTTPClientConfig", parts: &[&HTTP], check: no_check };
