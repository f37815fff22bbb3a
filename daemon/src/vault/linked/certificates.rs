//! The file of certificates that a link names: whose signature counts for its server. The link keeps the file's hash, or
//! whoever can change it could take the server's place, and the token with it.

use super::Fault;
use super::links::Link;
use crate::patience;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The setting, and what the link keeps beside it.
pub(crate) const CA: &str = "ca";
pub(crate) const CA_SHA256: &str = "ca-sha256";

/// The longest file of certificates.
pub(super) const LONGEST: u64 = 4 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ca {
    pub(super) path: PathBuf,
    sha256: String,
}

impl Ca {
    pub(super) fn of(link: &Link) -> Result<Option<Self>, Fault> {
        if link.setting(CA).is_none() {
            return Ok(None);
        }
        let unread = || Fault::Broken("its link does not say which certificates were meant".to_owned());
        let sha256 = link.setting(CA_SHA256).ok_or_else(unread)?.to_owned();
        Ok(Some(Self { path: link.path(CA)?, sha256 }))
    }

    /// What the file says, if it says what it said when the vault was linked.
    pub(super) async fn text(&self) -> Result<Vec<u8>, Fault> {
        let text = patience::file(&self.path, LONGEST).await?;
        if hash(&text) == self.sha256 {
            Ok(text)
        } else {
            Err(Fault::Changed(self.path.display().to_string()))
        }
    }
}

/// What a link is to keep of a file.
pub(crate) async fn sha256(path: &Path) -> Result<String, Fault> {
    Ok(hash(&patience::file(path, LONGEST).await?))
}

fn hash(text: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}
