//! The names that linked vaults' items have. No value is read for them, and nobody is asked: they are no secret to
//! the user's own programs, as those of the local vault.

use super::items::in_pieces;
use super::{Broker, Client, Refusal};
use crate::vault::linked::{Fault, Listed};
use keyloan_protocol::control::response::{ListedItem, Reply};
use keyloan_protocol::names::{FieldName, ItemName, VaultName};
use keyloan_protocol::reference::Reference;

/// Fields of one item sent together: each is at most some two thousand bytes.
const FIELDS: usize = 100;

impl Broker {
    pub(crate) async fn vault_items(&self, client: &Client, name: VaultName) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "list a vault's items").await?;
        let links = self.links()?;
        let asked = self.asked(client, links.meant(&name)?)?;
        let listed = asked.within(asked.vault.list(&asked.call)).await;
        let listed = listed.map_err(|fault| asked.refusal(fault))?;
        Ok(told(client, &asked.name, listed).await)
    }

    /// Of a reference to a field those of its item, too: that is what people have at hand.
    pub(crate) async fn linked_show(
        &self,
        client: &Client,
        vault: VaultName,
        item: ItemName,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "show an item's names").await?;
        let names = [Some(item.as_str()), item.as_str().rsplit_once('/').map(|(item, _)| item)];
        let names: Vec<&str> = names.into_iter().flatten().collect();
        let listed = self.listed(client, &vault, &names).await?;
        Ok(told(client, &vault, [listed]).await)
    }

    /// What the vault lists under the first of these names that it has.
    pub(super) async fn listed(
        &self,
        client: &Client,
        vault: &VaultName,
        names: &[&str],
    ) -> Result<Listed, Refusal> {
        let links = self.links()?;
        let asked = self.asked(client, links.meant(vault)?)?;
        let listed = asked.within(asked.vault.list(&asked.call)).await;
        let mut listed = listed.map_err(|fault| asked.refusal(fault))?;
        let at = |name: &&str| listed.iter().position(|listed| listed.item.as_str() == *name);
        match names.iter().find_map(at) {
            Some(at) => Ok(listed.swap_remove(at)),
            None => Err(asked.refusal(Fault::NoItem(names.first().copied().unwrap_or_default().to_owned()))),
        }
    }
}

/// An item of so many fields that no reply holds it comes in parts.
async fn told(client: &Client, vault: &VaultName, listed: impl IntoIterator<Item = Listed>) -> Reply {
    let items = listed.into_iter().flat_map(|Listed { item, fields }| {
        let one = |field: &FieldName| {
            Reference { vault: vault.clone(), item: item.clone(), field: field.clone() }.to_string()
        };
        let mut parts: Vec<Vec<String>> =
            fields.chunks(FIELDS).map(|fields| fields.iter().map(one).collect()).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        parts.into_iter().map(move |references| ListedItem { item: item.clone(), references })
    });
    in_pieces(client, items, |items, more| Reply::Listed { items, more }).await
}
