//! Which group the samples of a resource belong to.

use model::Labels;
use opentelemetry_proto::tonic::common::v1::KeyValue;

use crate::labels::{SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, first};
use crate::settings::Limits;
use crate::value_text::text;

/// The resource's identity: the three service attributes, which name one instance in the world, or without an
/// instance every attribute there is. The names are OTLP's, so that no scrape target's labels are the same.
pub(crate) fn group_key(attributes: &[KeyValue], limits: &Limits) -> Labels {
    let value =
        |a: &KeyValue| text(a.value.as_ref(), limits.value_depth).map(String::from).unwrap_or_default();
    let names = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE_ID];
    let is_unique = first(attributes, SERVICE_INSTANCE_ID).is_some_and(|id| !value(id).is_empty());
    if is_unique {
        let known = names.iter().filter_map(|name| first(attributes, name));
        return Labels::from_pairs(known.map(|a| (a.key.clone(), value(a))));
    }
    let named = attributes.iter().filter(|a| !a.key.is_empty());
    Labels::from_pairs(named.map(|a| (a.key.clone(), value(a))))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};

    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
        let value = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
        pairs
            .iter()
            .map(|(k, v)| KeyValue { key: (*k).to_owned(), value: value(v), ..KeyValue::default() })
            .collect()
    }

    #[test]
    fn an_instance_is_its_service_attributes_and_anything_else_is_all_of_them() {
        for (given, expected) in [
            (
                &[("host.name", "h"), ("service.name", "s"), ("service.instance.id", "i")] as &[_],
                r#"{"service.instance.id"="i", "service.name"="s"}"#,
            ),
            (&[("service.name", "s"), ("process.pid", "1")], r#"{"process.pid"="1", "service.name"="s"}"#),
            (&[("service.instance.id", ""), ("a", "b")], r#"{a="b"}"#),
            (&[], "{}"),
        ] {
            assert_eq!(group_key(&attributes(given), &Limits::default()).to_string(), expected);
        }
    }
}
