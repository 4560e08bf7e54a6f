//! The scraper's own settings.

use serde::Deserialize;

/// The least that bodies, or what waits for the ingesters, may be given.
const BYTES_MIN: usize = 1 << 20;

/// The scraper's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What takes part in the offset of scrapes, so that two systems with the same targets do not scrape them at the
    /// same moment. The same for all scrapers of a system: a target that moves then keeps its schedule.
    pub offset_host: String,
    /// The largest body of one target, in bytes after decompression; a job's `body_size_limit` may be lower.
    pub body_bytes_max: usize,
    /// Memory for the bodies of all targets that are being scraped at one time, in bytes.
    pub bodies_bytes_max: usize,
    /// Memory for samples that wait for the ingesters, in bytes; what comes beyond is dropped.
    pub buffer_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            offset_host: String::new(),
            body_bytes_max: 128 << 20,
            bodies_bytes_max: 512 << 20,
            buffer_bytes_max: 256 << 20,
        }
    }
}

impl service_runtime::Config for Config {
    fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, bytes) in [
            ("body_bytes_max", self.body_bytes_max),
            ("bodies_bytes_max", self.bodies_bytes_max),
            ("buffer_bytes_max", self.buffer_bytes_max),
        ] {
            if bytes < BYTES_MIN {
                faults.push(format!("{name}: must be {BYTES_MIN} or more"));
            }
        }
        if self.bodies_bytes_max / 2 < self.body_bytes_max {
            faults.push("bodies_bytes_max: must be twice body_bytes_max or more".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_defaults_are_these() {
        let defaults = format!("{:#?}\n", Config::default());
        test_kit::golden(env!("CARGO_MANIFEST_DIR"), "default-config.txt", &defaults);
    }

    #[test]
    fn every_fault_is_reported() {
        let faults = |yaml| service_runtime::parse_config::<Config>(yaml).err().unwrap_or_default().len();
        assert_eq!(faults(""), 0);
        assert_eq!(faults("body_bytes_max: 1\nbodies_bytes_max: 1\nbuffer_bytes_max: 1\n"), 4);
        assert_eq!(faults("bodies_bytes_max: 200000000\n"), 1);
        assert_eq!(faults("colour: red\n"), 1);
    }
}
