//! How long a shell keeps what it is lent, and what stands in the way of its being set or taken out.

use keyloan_e2e::Sandbox;
use keyloan_e2e::shell::{BASH, with_sets};

/// Of the only loan.
fn seconds_left(sandbox: &Sandbox) -> u64 {
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
    assert_eq!(loans.as_array().unwrap().len(), 1, "{loans}");
    loans[0]["seconds_left"].as_u64().unwrap()
}

#[test]
fn a_set_that_says_no_time_is_not_lent_for_another_sets() {
    let sandbox = with_sets();
    let terminal = BASH.opened(&sandbox);
    for (ask, most) in [
        ("opvars long", 4 * 3600),
        ("opvars long second", 900),
        ("opvars second long", 900),
        ("opvars long '~/titled'", 900),
        ("opvars long second --for 3h", 3 * 3600),
    ] {
        terminal.run(&format!("{ask}; echo en''ded"));
        terminal.expect("\nended\n");
        let left = seconds_left(&sandbox);
        assert!((most - 100..=most).contains(&left), "{ask}: {left}");
        terminal.run("unopvars; echo ba''ck");
        terminal.expect("\nback\n");
        keyloan_e2e::eventually("it is back", || {
            sandbox.keyloan(&["loans"]).run().ok().stderr.contains("nothing is lent")
        });
    }
}
