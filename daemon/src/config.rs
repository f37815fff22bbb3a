//! `config.toml`: plain, writable by any program of the user, and so only ever stricter than the policy.

use crate::policy::parse;
use keyloan_platform::paths::Paths;
use keyloan_platform::private_file::{Directory, FileError};
use keyloan_protocol::names::escaped;
use std::time::Duration;

/// The longest configuration file.
const MOST: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Config {
    /// `[lock] idle`: where it is shorter than the policy's it counts.
    pub(crate) lock_idle: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{path}: {cause}")]
    Form { path: String, cause: String },
}

impl Config {
    /// Without a file, the defaults.
    pub(crate) fn load(paths: &Paths) -> Result<Self, ConfigError> {
        let directory = match Directory::open(&paths.config) {
            Ok(directory) => directory,
            Err(error) if error.is_absent() => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let Some(bytes) = directory.read("config.toml", MOST)? else { return Ok(Self::default()) };
        let path = paths.config.join("config.toml").display().to_string();
        Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|cause| ConfigError::Form { path, cause })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let mut config = Self::default();
        for (key, value) in &table {
            let ("lock", Some(lock)) = (key.as_str(), value.as_table()) else {
                return Err(format!("unknown key '{}' (known: lock)", escaped(key, 60)));
            };
            for (key, value) in lock {
                let ("idle", Some(text)) = (key.as_str(), value.as_str()) else {
                    return Err(format!("unknown key 'lock.{}' (known: idle)", escaped(key, 60)));
                };
                let idle =
                    parse::idle(text).ok_or("lock.idle takes a time such as 30m or 8h, from 1m to 7d")?;
                config.lock_idle = Some(idle);
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(
            Config::parse("[lock]\nidle = \"30m\"\n").unwrap().lock_idle,
            Some(Duration::from_secs(1800))
        );
        assert!(Config::parse("[lock]\nidel = \"30m\"\n").unwrap_err().contains("lock.idel"));
        assert!(Config::parse("[policy]\nenv = \"allow\"\n").unwrap_err().contains("unknown key 'policy'"));
        assert!(Config::parse("").unwrap().lock_idle.is_none());
    }
}
