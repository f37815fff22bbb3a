//! The names that an item of a linked vault has. No value is read for them, and nobody is asked: they are no secret to
//! the user's own programs, as those of the local vault.

use super::{Broker, Client, Refusal};
use crate::vault::linked::{Fault, Listed};
use keyloan_protocol::control::response::{ListedItem, Reply};
use keyloan_protocol::names::{ItemName, VaultName};
use keyloan_protocol::reference::Reference;

impl Broker {
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
        Ok(Reply::Listed { items: vec![listed_item(&vault, listed)], more: false })
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

pub(super) fn listed_item(vault: &VaultName, Listed { item, fields }: Listed) -> ListedItem {
    let one = |field| Reference { vault: vault.clone(), item: item.clone(), field }.to_string();
    let references = fields.into_iter().map(one).collect();
    ListedItem { item, references }
}
