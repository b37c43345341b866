#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use backstop_client::connection::continuity::vouches;

use super::*;

struct Place {
    config: ConfigStore,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Self {
            config: ConfigStore::new(dir.path()),
            dir,
        };
        let first = CertificatePair::self_signed("elsa").unwrap();
        let outcome = announce(&place.config, &first, None).unwrap();
        assert!(
            matches!(outcome, Outcome::Switched(_)),
            "nobody has pinned anything yet"
        );
        place
    }

    fn in_use(&self) -> Fingerprint {
        *in_use(&self.config).unwrap().fingerprint()
    }

    fn announce(&self, grace: Option<i64>) -> (Fingerprint, Outcome) {
        let pair = CertificatePair::self_signed("elsa").unwrap();
        let outcome = announce(&self.config, &pair, grace).unwrap();
        (*pair.load().unwrap().fingerprint(), outcome)
    }

    /// What somebody who pinned `pin` makes of the certificate in use.
    fn vouched(&self, pin: &Fingerprint) -> Result<usize, String> {
        let shown = self.in_use();
        let chain = published_chain(&self.config, &shown).unwrap();
        let now = Timestamp::now().as_second();
        vouches(&chain, pin, 0, &shown, now)
            .map(|vouched| vouched.links)
            .map_err(|err| err.to_string())
    }
}

#[test]
fn an_announced_certificate_is_used_when_its_time_has_come() {
    let place = Place::new();
    let first = place.in_use();
    let now = Timestamp::now().as_second();
    let (second, outcome) = place.announce(None);
    let Outcome::Announced(fingerprint, switch_at) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(fingerprint, second);
    assert!((DEFAULT_GRACE..DEFAULT_GRACE + 60).contains(&(switch_at - now)));
    assert_eq!(switch_if_due(&place.config).unwrap(), None);
    assert_eq!(place.in_use(), first);
    let told = status(&place.config, &first).unwrap();
    assert_eq!(told.next.unwrap().fingerprint, second);
    assert_eq!(told.number, 0);

    assert_eq!(switch(&place.config, switch_at - 1).unwrap(), None);
    assert_eq!(switch(&place.config, switch_at).unwrap(), Some(second));
    assert_eq!(place.in_use(), second);
    assert!(next(&place.config).unwrap().is_none());
    assert_eq!(place.vouched(&first), Ok(1));
    assert!(status(&place.config, &second).unwrap().number > 0);
}

#[test]
fn a_withdrawn_certificate_leaves_no_trace() {
    let place = Place::new();
    let first = place.in_use();
    let (second, _) = place.announce(Some(60));
    assert_eq!(withdraw(&place.config).unwrap(), second);
    assert!(matches!(
        withdraw(&place.config),
        Err(ChangeError::NothingAnnounced)
    ));
    assert!(matches!(
        switch_now(&place.config),
        Err(ChangeError::NothingAnnounced)
    ));
    assert_eq!(place.in_use(), first);
    let (third, outcome) = place.announce(Some(0));
    assert_eq!(outcome, Outcome::Switched(third));
    assert_eq!(place.vouched(&first), Ok(1));
}

#[test]
fn a_switch_that_was_cut_off_is_completed() {
    for cut in ["before the key", "before the certificate", "before the end"] {
        let place = Place::new();
        let first = place.in_use();
        let (second, _) = place.announce(Some(60));
        let stored = place.config.json(JsonFile::NextCertificate).unwrap();
        let next = next(&place.config).unwrap().unwrap();
        let old = in_use(&place.config).unwrap();
        extend_chain(&place.config, &old, &second).unwrap();
        if cut != "before the key" {
            let key = place.dir.path().join(tls::KEY_FILE);
            std::fs::write(key, next.pair.key.as_bytes()).unwrap();
        }
        if cut == "before the end" {
            let file = place.dir.path().join(tls::CERTIFICATE_FILE);
            std::fs::write(file, &next.pair.certificates).unwrap();
        }
        // As after a crash: what was announced is there still.
        place
            .config
            .edit_json(JsonFile::NextCertificate, |map| *map = stored)
            .unwrap();
        assert_eq!(switch_now(&place.config).unwrap(), second, "{cut}");
        assert_eq!(place.in_use(), second, "{cut}");
        assert_eq!(place.vouched(&first), Ok(1), "{cut}");
    }
}

#[test]
fn what_was_signed_but_never_used_is_not_published() {
    let place = Place::new();
    let old = in_use(&place.config).unwrap();
    let never = Fingerprint([7; 32]);
    extend_chain(&place.config, &old, &never).unwrap();
    let published = published_chain(&place.config, old.fingerprint()).unwrap();
    assert!(published.links().is_empty());
    let (second, _) = place.announce(Some(0));
    let published = published_chain(&place.config, &second).unwrap();
    assert_eq!(published.links().len(), 1);
    assert_eq!(published.end(), Some(second));
}

#[test]
fn announcing_the_same_once_more_does_not_put_it_off() {
    let place = Place::new();
    let pair = CertificatePair::self_signed("elsa").unwrap();
    let at = |grace| match announce(&place.config, &pair, Some(grace)).unwrap() {
        Outcome::Announced(_, at) => at,
        other => panic!("{other:?}"),
    };
    let first = at(1000);
    assert_eq!(at(5000), first);
    assert!(at(500) < first);
    switch_now(&place.config).unwrap();
    let again = announce(&place.config, &pair, None).unwrap();
    assert_eq!(again, Outcome::InUse(place.in_use()));
    // Not even when its files were touched.
    let old_key = CertificatePair::of(&place.config, &pair.certificates, None).unwrap();
    assert_eq!(old_key.key, pair.key);
}

#[test]
fn a_certificate_is_used_before_the_old_one_expires_and_not_before_it_is_valid() {
    let with = |before: i64, after: i64| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["elsa".to_owned()]).unwrap();
        let date = |seconds: i64| {
            let begin = rcgen::date_time_ymd(2030, 1, 1);
            begin + std::time::Duration::from_secs(u64::try_from(seconds).unwrap())
        };
        (params.not_before, params.not_after) = (date(before), date(after));
        let certificate = params.self_signed(&key).unwrap();
        let pair = CertificatePair {
            certificates: certificate.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        };
        pair.load().unwrap()
    };
    let begin = with(0, 1).not_before();
    let day = 86400;
    let (old, new) = (with(0, 10 * day), with(5 * day, 90 * day));
    assert_eq!(due(begin + 6 * day, day, &old, &new), begin + 7 * day);
    assert_eq!(
        due(begin + 6 * day, 30 * day, &old, &new),
        begin + 10 * day - BEFORE_EXPIRY
    );
    assert_eq!(due(begin + day, day, &old, &new), begin + 5 * day);
    // Expired already: at once.
    assert_eq!(due(begin + 20 * day, day, &old, &new), begin + 20 * day);
    // Whoever says now means now.
    assert_eq!(due(begin + day, 0, &old, &new), begin + day);
    // An expired one is not announced.
    let place = Place::new();
    let (certificates, key) = expired();
    let old = CertificatePair {
        certificates,
        key: Zeroizing::new(key),
    };
    let refused = announce(&place.config, &old, None).unwrap_err();
    assert!(matches!(refused, ChangeError::Expired { .. }), "{refused}");
}

/// A certificate of long ago with its key.
fn expired() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["elsa".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn spans_of_time_are_read_and_limited() {
    for (text, seconds) in [
        ("36h", 129_600),
        ("7d", 604_800),
        ("0s", 0),
        ("1d 2h", 93_600),
    ] {
        assert_eq!(parse_grace(text), Ok(seconds), "{text}");
    }
    for text in ["", "soon", "-1h", "91d", "1 month"] {
        assert!(parse_grace(text).is_err(), "{text}");
    }
    let place = Place::new();
    assert_eq!(grace(&place.config).unwrap(), DEFAULT_GRACE);
    set_grace(&place.config, Some(5)).unwrap();
    assert_eq!(grace(&place.config).unwrap(), 5);
    set_grace(&place.config, None).unwrap();
    assert_eq!(grace(&place.config).unwrap(), DEFAULT_GRACE);
}
