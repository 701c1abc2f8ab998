//! What the metadata service answers, and what holds while it does not.

use super::*;

#[test]
fn without_metadata_and_configured_links_the_problem_says_what_to_configure() {
    let expected = Site {
        server_id: None,
        private: Vec::new(),
        problems: vec![Problem::new(
            "metadata-silent",
            "the metadata service does not answer: connection refused",
            "on a server outside Hetzner Cloud, write the private links into [[site.private]]",
        )],
        ..usual_site()
    };
    assert_eq!(site(&empty(), &usual(), &no_metadata()), expected);
}

#[test]
fn before_the_first_answer_of_the_metadata_service_the_server_waits_for_it() {
    let problems = vec![Problem::new(
        "metadata-silent",
        "the metadata service has not answered yet",
        "wait: the first answer may take several seconds, and the networks are served once it is there",
    )];
    let expected = Site { server_id: None, private: Vec::new(), problems, ..usual_site() };
    assert_eq!(site(&empty(), &usual(), &MetadataView::default()), expected);
}

#[test]
fn the_last_answer_of_the_metadata_service_stays_valid_while_it_does_not_answer() {
    let view = MetadataView {
        error: Some(Failure { text: "timed out".to_owned(), is_slow: false }),
        ..metadata(vec![production()])
    };
    let expected = usual_site_with(|site| {
        site.problems = vec![Problem::new(
            "metadata-silent",
            "the metadata service does not answer: timed out",
            "on a server outside Hetzner Cloud, write the private links into [[site.private]]",
        )];
    });
    assert_eq!(site(&empty(), &usual(), &view), expected);
}

#[test]
fn what_the_metadata_contradicts_is_served_and_reported() {
    let doubting =
        |doubts: &[Doubt]| MetadataView { doubts: doubts.to_vec(), ..metadata(vec![production(), tenant()]) };
    let advice = "the daemon asks again by itself; if it lasts, look at the server in the cloud's console";
    let problem = |what: &str| Problem::new("metadata-doubtful", what, advice);
    let unlisted = [Doubt::Unlisted(NetworkId(1234)), Doubt::Unlisted(NetworkId(1235))];
    let served = "the metadata service no longer lists network";
    let expected = usual_site_with(|site| {
        site.private.push(tenant_link());
        site.problems = vec![
            problem(&format!("{served} 1234, but enp7s0 still has its address 10.0.0.2: it is served")),
            problem(&format!("{served} 1235, but enp8s0 still has its address 10.2.0.2: it is served")),
        ];
    });
    assert_eq!(site(&empty(), &with_tenant(), &doubting(&unlisted)), expected);
    // The tenant's interface is gone as well: it was detached.
    let expected = usual_site_with(|site| {
        site.problems =
            vec![problem(&format!("{served} 1234, but enp7s0 still has its address 10.0.0.2: it is served"))];
    });
    assert_eq!(site(&empty(), &usual(), &doubting(&unlisted)), expected);
    let other = [Doubt::Server(ServerId(1)), Doubt::Range(NetworkId(1234), "10.0.0.0/24".parse().unwrap())];
    let texts: Vec<String> =
        site(&empty(), &with_tenant(), &doubting(&other)).problems.into_iter().map(|problem| problem.what).collect();
    assert_eq!(
        texts,
        [
            "the metadata service calls this server 1, and called it 4711 before",
            "the metadata service lists network 1234 with the range 10.0.0.0/24, but enp7s0 has the route of \
             10.0.0.0/16, \
             which is served",
        ]
    );
}

#[test]
fn a_slow_metadata_service_is_told_from_one_that_is_not_there() {
    let advice = |view: &MetadataView| site(&empty(), &usual(), view).problems[0].to_string();
    let failed =
        |is_slow| MetadataView { error: Some(Failure { text: "timed out".to_owned(), is_slow }), ..no_metadata() };
    assert_eq!(
        advice(&failed(true)),
        "the metadata service does not answer: it accepts the connection, but is slow: timed out: wait: the \
         daemon asks \
         again by itself, and gives it 15 s each time"
    );
    assert!(
        advice(&failed(false))
            .ends_with("on a server outside Hetzner Cloud, write the private links into [[site.private]]")
    );
    assert_eq!(
        advice(&MetadataView::default()),
        "the metadata service has not answered yet: wait: the first answer may take several seconds, and the \
         networks are \
         served once it is there"
    );
}
