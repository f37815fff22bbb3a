//! Reading what was approved for a loan: the local vault's items, and those of linked vaults, one batch a vault.

use super::leases::Leases;
use super::shell::not_for_shells;
use super::{Approved, Broker, Client, Refusal};
use crate::env_set::plan::{self, From, Plan, PlanError, Planned, Unread, VARS};
use crate::vault::local::item_file::Field;
use crate::vault::local::{LocalVault, index};
use keyloan_protocol::control::Value;
use keyloan_protocol::control::response::{FilePart, LentFile};
use keyloan_protocol::env_vars;
use keyloan_protocol::limits;
use keyloan_protocol::names::VarName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::shell_vars;
use std::collections::HashMap;

impl Broker {
    /// Reads what was approved, each item once.
    pub(super) async fn read_planned(
        &self,
        client: &Client,
        approved: &Approved,
        plan: &mut Plan,
    ) -> Result<(Vec<Value>, Vec<LentFile>, Leases), Refusal> {
        let elsewhere = plan.variables.iter().flat_map(Planned::references);
        let elsewhere = elsewhere.filter(|reference| !reference.vault.is_local());
        let unread = plan.unread.iter().map(|unread| &unread.reference);
        let elsewhere: Vec<&Reference> = elsewhere.chain(unread).collect();
        let (elsewhere, leases) = self.read_for_loan(client, approved, &elsewhere).await?;
        open_sets(plan, &elsewhere)?;
        let mut items = Items { vault: &self.vault.borrow(), read: HashMap::new(), elsewhere };
        let mut values = Vec::with_capacity(plan.variables.len());
        let mut files = Vec::new();
        for planned in &plan.variables {
            let name = &planned.name;
            match &planned.from {
                From::Literal(text) => {
                    values.push(Value::new(name.as_str(), SecretBytes::copy_of(text.as_bytes())));
                }
                From::Field(reference) => {
                    let value = items.of(reference)?;
                    values.push(environment_value(name, value)?);
                }
                // With all others of its item, below.
                From::Vars(_) => {}
                From::Line(reference) => {
                    let text = items.of(reference)?;
                    let gone = || no_field(reference);
                    let held = env_vars::parse_vars(text).map_err(|_| gone())?;
                    let value = held.into_iter().rev().find(|(held, _)| held == name).ok_or_else(gone)?.1;
                    values.push(environment_value(name, value)?);
                }
                From::Files(form, parts) => {
                    let mut lent = LentFile { variable: name.clone(), form: *form, parts: Vec::new() };
                    for (file, reference) in parts {
                        let content = items.of(reference)?;
                        // No variable's name holds a slash.
                        let value = format!("{name}/{file}");
                        values.push(Value::new(&value, SecretBytes::copy_of(content)));
                        lent.parts.push(FilePart { name: file.clone(), value });
                    }
                    files.push(lent);
                }
            }
        }
        for item in plan.items_with_variables() {
            let text = items.field(item.as_str(), VARS)?;
            let gone = || Refusal::NoField { item: item.to_string(), field: VARS.to_owned() };
            let held: HashMap<_, _> = env_vars::parse_vars(text).map_err(|_| gone())?.into_iter().collect();
            let of_item = |planned: &&Planned| matches!(&planned.from, From::Vars(from) if from == item);
            for Planned { name, .. } in plan.variables.iter().filter(of_item) {
                values.push(environment_value(name, held.get(name).ok_or_else(gone)?)?);
            }
        }
        Ok((values, files, leases))
    }
}

/// Puts the variables of the sets that were read in the place of these, as `Draft` does it for sets whose names are
/// known: later sets win, and what steers is left out.
fn open_sets(plan: &mut Plan, values: &HashMap<Reference, SecretBytes>) -> Result<(), Refusal> {
    for Unread { reference, at } in std::mem::take(&mut plan.unread) {
        let text = values.get(&reference).ok_or(Refusal::Task)?;
        let fault = |error| PlanError::Faults(vec![format!("{reference}: {error}")]);
        let held = env_vars::parse_vars(text.expose()).map_err(fault)?;
        for (name, _) in held {
            if !plan.only.is_empty() && !plan.only.contains(&name) {
                continue;
            }
            if env_vars::steers(name.as_str()) {
                let note =
                    format!("{name} of {reference} is not lent: it steers what runs or where it talks");
                plan.notes.push(note);
            } else if plan.for_shell && shell_vars::is_the_shells(name.as_str()) {
                plan.notes.push(not_for_shells(&name));
            } else if !plan.variables.iter().any(|planned| planned.name == name && planned.at > at) {
                plan.variables.retain(|planned| planned.name != name);
                let from = From::Line(reference.clone());
                plan.variables.push(Planned { name, from, set: format!("item '{}'", reference.item), at });
            }
        }
    }
    if let Some(name) = plan.only.iter().find(|name| plan.variables.iter().all(|held| held.name != **name)) {
        return Err(PlanError::Faults(vec![format!("no set that was asked for has {name}")]).into());
    }
    if plan.variables.is_empty() {
        return Err(PlanError::Nothing.into());
    }
    if plan.variables.len() > limits::VALUES {
        let many = format!("{} values; one loan holds at most {}", plan.variables.len(), limits::VALUES);
        return Err(PlanError::Faults(vec![many]).into());
    }
    Ok(())
}

fn no_field(reference: &Reference) -> Refusal {
    Refusal::NoField { item: reference.subject(), field: reference.field.to_string() }
}

/// Items as they are read for one loan.
struct Items<'a> {
    vault: &'a LocalVault,
    read: HashMap<String, Vec<Field>>,
    elsewhere: HashMap<Reference, SecretBytes>,
}

impl Items<'_> {
    fn of(&mut self, reference: &Reference) -> Result<&[u8], Refusal> {
        if reference.vault.is_local() {
            return self.field(reference.item.as_str(), reference.field.as_str());
        }
        self.elsewhere.get(reference).map(SecretBytes::expose).ok_or(Refusal::Task)
    }

    fn field(&mut self, item: &str, field: &str) -> Result<&[u8], Refusal> {
        if !self.read.contains_key(item) {
            let fields = self.vault.read(index::Kind::Item, item)?;
            let gone = || Refusal::NotFound { what: "item", name: item.to_owned() };
            self.read.insert(item.to_owned(), fields.ok_or_else(gone)?);
        }
        let held = self.read[item].iter().find(|held| held.name.as_str() == field);
        let gone = || Refusal::NoField { item: item.to_owned(), field: field.to_owned() };
        held.map(|held| held.value.expose()).ok_or_else(gone)
    }
}

fn environment_value(name: &VarName, value: &[u8]) -> Result<Value, Refusal> {
    let fault = value
        .contains(&0)
        .then(|| {
            format!("{name}: the value holds a NUL byte, which no environment can carry (lend it as a file)")
        })
        .or_else(|| plan::too_long(name, value.len()));
    match fault {
        Some(fault) => Err(PlanError::Faults(vec![fault]).into()),
        None => Ok(Value::new(name.as_str(), SecretBytes::copy_of(value))),
    }
}
