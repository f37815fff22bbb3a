//! Where keyloan keeps its files, by the XDG Base Directory Specification. The only reader of those
//! variables.
#![expect(clippy::disallowed_methods, reason = "this is the one loader of those variables")]

use std::path::PathBuf;

/// The directories of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub config: PathBuf,
    pub vault: PathBuf,
    pub state: PathBuf,
    pub runtime: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no home directory: neither HOME nor the user database names one")]
pub struct NoHome;

impl Paths {
    /// From HOME and the XDG variables; without HOME from the user database. Relative values are
    /// ignored, as the specification demands.
    pub fn discover() -> Result<Self, NoHome> {
        let home = home().ok_or(NoHome)?;
        let own = |base: Option<PathBuf>, default: &str| {
            base.filter(|base| base.is_absolute()).unwrap_or_else(|| home.join(default)).join("keyloan")
        };
        let state = own(dirs::state_dir().or_else(|| variable("XDG_STATE_HOME")), ".local/state");
        let runtime = match dirs::runtime_dir().or_else(|| variable("XDG_RUNTIME_DIR")) {
            Some(base) if base.is_absolute() => base.join("keyloan"),
            _ => state.join("run"),
        };
        Ok(Self {
            config: own(dirs::config_dir(), ".config"),
            vault: own(dirs::data_dir(), ".local/share").join("vault"),
            state,
            runtime,
        })
    }

    /// The environment a daemon needs to find the same directories, and nothing else of the caller's.
    pub fn environment() -> Vec<(&'static str, std::ffi::OsString)> {
        let names = ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"];
        names.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect()
    }
}

/// The home directory; `None` when it is neither set nor recorded.
pub fn home() -> Option<PathBuf> {
    dirs::home_dir().filter(|home| home.is_absolute())
}

/// The home directory that the user database has, whatever the environment says.
pub fn recorded_home() -> Option<PathBuf> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}
