//! What keyloan asks of the operating system: the only place where unsafe compiles.

pub mod descriptors;
pub mod exec;
pub mod lent_files;
pub mod memory;
pub mod paths;
pub mod peer;
pub mod private_file;
pub mod process;
pub mod program;
pub mod pty;
pub mod sealed;
pub mod search;
pub mod service;
pub mod signals;
pub mod terminal;
pub mod wiping;

mod sys {
    #[cfg(target_os = "linux")]
    mod linux;
    #[cfg(target_os = "linux")]
    pub(crate) use linux::*;
    #[cfg(target_os = "macos")]
    mod macos;
    #[cfg(target_os = "macos")]
    pub(crate) use macos::*;
}
