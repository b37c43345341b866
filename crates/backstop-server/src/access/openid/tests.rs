#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::access::control::tests::setup;
use serde_json::json;

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn settings(more: Value) -> OpenIdSettings {
    let mut properties = map(json!({"issuer-url": "https://id.example.com", "client-id": "b"}));
    properties.extend(map(more));
    OpenIdSettings::new("oidc1", &properties, Route::Direct)
}

fn claims(told: Value) -> Claims {
    Claims::merged(
        map(json!({"sub": "17", "email": "a@x", "name": null})),
        map(told),
    )
}

#[test]
fn the_id_token_counts_more_than_what_is_told_beside_it() {
    let claims = claims(json!({"sub": "18", "email": "other", "name": "Ann", "groups": ["x"]}));
    assert_eq!(claims.text("sub"), Some("17"));
    assert_eq!(claims.text("email"), Some("a@x"));
    assert_eq!(claims.text("name"), Some("Ann"));
    assert_eq!(claims.text("groups"), None);
}

#[test]
fn users_are_named_by_the_claim_of_their_realm() {
    let claims = claims(json!({"preferred_username": "ann"}));
    for (claim, expected) in [
        (json!({}), Ok("17")),
        (json!({"username-claim": "subject"}), Ok("17")),
        (json!({"username-claim": "username"}), Ok("ann")),
        (json!({"username-claim": "email"}), Ok("a@x")),
        (json!({"username-claim": "upn"}), Err("missing claim 'upn'")),
    ] {
        let settings = settings(claim);
        let name = settings.user_name(&claims);
        assert_eq!(
            name.map_err(|refused| refused.reason),
            expected.map_err(str::to_owned)
        );
    }
}

#[test]
fn unknown_users_are_created_only_where_the_realm_does_so() {
    let setup = setup("pbs-3.2.4");
    let claims = claims(json!({"given_name": "Ann", "family_name": "x", "upn": "no name"}));
    let login = |more: Value| {
        let reply = setup.access.openid_login(&settings(more), &claims, false);
        reply
            .map(|reply| reply.record)
            .map_err(|err| err.to_string())
    };
    assert!(login(json!({})).unwrap_err().contains("autocreate"));
    assert_eq!(
        login(json!({"autocreate": true, "username-claim": "upn"})).unwrap_err(),
        "not a valid user id"
    );
    let record = login(json!({"autocreate": true})).unwrap();
    assert_eq!(record.username.as_str(), "17@oidc1");
    let ticket = record.ticket.unwrap();
    setup.access.check_ticket(&ticket, None, false).unwrap();
    let user = user::get(setup.access.config(), &record.username).unwrap();
    assert_eq!(
        (
            user.firstname.as_deref(),
            user.lastname,
            user.email.as_deref()
        ),
        (Some("Ann"), None, Some("a@x"))
    );
    let disable = map(json!({"enable": false}));
    user::update(setup.access.config(), &record.username, disable, &[], None).unwrap();
    for more in [json!({}), json!({"autocreate": true})] {
        assert_eq!(login(more).unwrap_err(), DISABLED);
    }
}

#[test]
fn a_login_goes_on_only_with_the_redirect_url_that_it_began_with() {
    let setup = setup("pbs-3.2.4");
    let login = PendingLogin::new("oidc1", "https://b:8007", setup.access.now()).unwrap();
    let state = login.state();
    let peer = IpAddr::from([127, 0, 0, 1]);
    let pending = &setup.access.openid().pending;
    pending.insert(login, peer, setup.access.now()).unwrap();
    let other = setup.access.openid_pending(&state, "https://evil");
    assert!(other.unwrap_err().to_string().contains("redirect URL"));
    let again = setup.access.openid_pending(&state, "https://b:8007");
    assert!(matches!(again, Err(OpenIdError::UnknownState)));
}
