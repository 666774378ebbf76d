//! Files with one mistake, and what is told of it.

use crate::config::tests::{MINIMAL, changed, problems};

#[test]
fn what_follows_from_a_mistake_does_not_come_before_it() {
    // The tier stands before what it needs, and only what it needs is wrong.
    let tier = "[tiers.early]\ndeployments = [\"chat\", \"a b\"]\nspend_quota = { dollars = 1, period = \"daily\" }\n";
    let price = "[prices.\"gpt-4o-mini\"]\ninput = \"0.15\"\noutput = 0.6\n";
    assert_eq!(
        problems(&format!("{tier}{MINIMAL}{price}")),
        [
            "2:24: tiers.early.deployments[1]: there is no deployment `a b`",
            "18:9: prices.gpt-4o-mini.input: must be an amount of dollars, as a decimal number, found string",
        ]
    );
    let misnamed = changed("[deployments.chat]", "[deployments.\"a b\"]");
    let problems_of_it = problems(&format!("[tiers.early]\ndeployments = [\"a b\"]\n{misnamed}"));
    assert_eq!(problems_of_it.len(), 1, "{problems_of_it:#?}");
    assert!(
        problems_of_it[0].starts_with("12:14: deployments.\"a b\": may hold only"),
        "{problems_of_it:#?}"
    );

    // A misspelt key is why another is missing.
    let misspelt = changed("certificate = ", "certificat = ");
    let problems_of_it = problems(&misspelt);
    assert_eq!(problems_of_it.len(), 2, "{problems_of_it:#?}");
    assert!(problems_of_it[0].contains("did you mean `certificate`?"), "{problems_of_it:#?}");
    assert!(problems_of_it[1].contains("listen.certificate: is missing"), "{problems_of_it:#?}");

    // So is a misspelt section, and every reference into it would be one more.
    let misspelt = changed("[deployments.chat]", "[deploymnets.chat]");
    let problems_of_it = problems(&format!("[tiers.early]\ndeployments = [\"chat\"]\n{misspelt}"));
    assert_eq!(problems_of_it.len(), 2, "{problems_of_it:#?}");
    assert!(problems_of_it[0].contains("did you mean `deployments`?"), "{problems_of_it:#?}");
    assert!(problems_of_it[1].contains("deployments: must have at least one entry"), "{problems_of_it:#?}");
}
