//! The file `public`: in the clear, so that it can be read before any unlock. Nothing in it is believed but for
//! what is shown.

use super::{LocalVault, VaultError};

const PUBLIC: &str = "public";

/// Some thousand keys with certificates.
const MOST: usize = 8 * 1024 * 1024;

impl LocalVault {
    pub(crate) fn read_public(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.attach()?.root.read(PUBLIC, MOST)?)
    }

    pub(crate) fn replace_public(&mut self, bytes: &[u8]) -> Result<(), VaultError> {
        Ok(self.parts()?.0.root.replace(PUBLIC, bytes)?)
    }
}
