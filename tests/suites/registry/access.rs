//! TLS with an authority of one's own, and passwords.

use std::{fs, os::unix::fs::PermissionsExt as _};

use pellicle_tests::{Cmd, TestStore, Who, archive::Archive};

use crate::{
    json, listed,
    script::{Answer, Made, Script},
    server::{PASSWORD, Registry, USER},
};

fn no_word_of_it(text: &str) {
    for secret in [PASSWORD, "bWU6czNjcmV0LXdvcmQ="] {
        assert!(!text.contains(secret), "the password was told:\n{text}");
    }
}

#[test]
fn a_guarded_registry_is_for_those_who_trust_it_and_have_the_password() {
    let Some(r) = Registry::guarded("a_guarded_registry") else {
        return;
    };
    for who in Who::all() {
        let s = TestStore::new(who);
        let layer = s.file("l.tar", Archive::new().file("f", "f").end());
        s.cmd(["import"]).arg(layer).arg("x").ok();
        let name = r.name(&format!("guarded/{who:?}").to_lowercase());
        let auth = s.path("auth/auth.json");
        let on = |args: &[&str]| -> Cmd {
            s.cmd(args)
                .env("REGISTRY_AUTH_FILE", &auth)
                .arg("--cert-dir")
                .arg(r.certs())
        };
        s.cmd(["push", "x", &name])
            .run()
            .failed_clearly(1, &["certificate", "--cert-dir"]);
        on(&["push", "x", &name])
            .run()
            .failed_clearly(1, &["without credentials", "pellicle login"]);

        on(&["login", "-u", USER, "--password-stdin", &r.host()])
            .stdin("wrong\n")
            .run()
            .failed_clearly(1, &["cannot log in", "refuses"]);
        assert!(!auth.exists(), "nothing is kept of a login that failed");
        let said = on(&[
            "login",
            "--log-level",
            "trace",
            "-u",
            USER,
            "--password-stdin",
            &r.host(),
        ])
        .stdin(format!("{PASSWORD}\n"))
        .run()
        .succeeded();
        no_word_of_it(&said.to_string());
        let mode = fs::metadata(&auth).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            s.cmd(["login", "--get-login", &r.host()])
                .env("REGISTRY_AUTH_FILE", &auth)
                .ok(),
            USER
        );

        let said = on(&["push", "--log-level", "trace", "x", &name])
            .run()
            .succeeded();
        no_word_of_it(&said.to_string());
        let t = TestStore::new(who);
        t.cmd([
            "pull",
            "--creds",
            &format!("{USER}:{PASSWORD}"),
            "--tls-verify=false",
            &name,
        ])
        .ok();
        t.cmd([
            "pull",
            "--creds",
            &format!("{USER}:no"),
            "--tls-verify=false",
            &name,
        ])
        .run()
        .failed_clearly(1, &["credentials there are"]);
        s.cmd(["logout", &r.host()])
            .env("REGISTRY_AUTH_FILE", &auth)
            .ok();
        s.cmd(["logout", &r.host()])
            .env("REGISTRY_AUTH_FILE", &auth)
            .run()
            .failed_clearly(1, &["not logged in"]);
        on(&["pull", &name])
            .run()
            .failed_clearly(1, &["without credentials"]);
    }
}

#[test]
fn helpers_and_docker_s_file_have_credentials_too() {
    let Some(r) = Registry::guarded("helpers_and_docker_s_file") else {
        return;
    };
    let s = TestStore::new(Who::Root);
    let layer = s.file("l.tar", Archive::new().file("f", "f").end());
    s.cmd(["import"]).arg(layer).arg("x").ok();
    let bin = s.directory("bin");
    s.program(
        "bin/docker-credential-test",
        &format!("#!/bin/sh\ncat >/dev/null\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"),
    );
    s.directory("docker");
    s.file(
        "docker/config.json",
        format!(r#"{{"credHelpers": {{"{}": "test"}}}}"#, r.host()),
    );
    let path = format!("{}:/usr/bin:/bin", bin.display());
    s.cmd(["push", "x", &r.name("helped")])
        .arg("--cert-dir")
        .arg(r.certs())
        .env("DOCKER_CONFIG", s.path("docker"))
        .env("PATH", &path)
        .ok();
    s.program(
        "bin/docker-credential-test",
        "#!/bin/sh\necho it is locked; exit 1\n",
    );
    s.cmd(["pull", &r.name("helped")])
        .arg("--cert-dir")
        .arg(r.certs())
        .env("DOCKER_CONFIG", s.path("docker"))
        .env("PATH", &path)
        .run()
        .failed_clearly(1, &["docker-credential-test", "it is locked"]);
}

#[test]
fn a_token_that_ends_in_the_middle_is_replaced() {
    let made = Made::of(&[Archive::new().file("a", "a").end()]);
    let layer = made.clone();
    // The first token is good for two requests.
    let uses = std::sync::atomic::AtomicU32::new(0);
    let tokens = std::sync::atomic::AtomicU32::new(0);
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let own = std::sync::Arc::clone(&port);
    let r = Script::start(move |asked| {
        use std::sync::atomic::Ordering::SeqCst;
        if asked.path.starts_with("/token") {
            let n = tokens.fetch_add(1, SeqCst) + 1;
            return Some(Answer::Whole(
                200,
                vec![],
                format!(r#"{{"token":"t{n}","expires_in":300}}"#).into_bytes(),
            ));
        }
        let current = format!("Bearer t{}", tokens.load(SeqCst));
        let ended = tokens.load(SeqCst) == 1 && uses.load(SeqCst) >= 2;
        if asked.header("authorization") != Some(&current) || ended {
            let at = own.get().copied().unwrap_or(0_u16);
            let wants = format!(r#"Bearer realm="http://localhost:{at}/token",service="s""#);
            return Some(Answer::Whole(
                401,
                vec![("WWW-Authenticate".to_owned(), wants)],
                vec![],
            ));
        }
        uses.fetch_add(1, SeqCst);
        layer.answer(asked)
    });
    port.set(r.port).expect("once");
    let s = TestStore::new(Who::User.missing().map_or(Who::User, |_| Who::Root));
    s.cmd(["pull", "-q", &r.name("x")]).ok();
    let asked = r.asked("/token");
    assert_eq!(asked.len(), 2, "{asked:#?}");
    assert!(
        asked[0].path.contains("scope=repository:x:pull") && asked[0].path.contains("service=s"),
        "{asked:#?}"
    );
}

#[test]
fn what_the_registry_may_see_does_not_follow_a_redirect_elsewhere() {
    let made = Made::of(&[Archive::new().file("a", "a").end()]);
    let (there, here) = (made.clone(), made);
    let elsewhere = Script::start(move |asked| there.answer(asked));
    let port = elsewhere.port;
    let r = Script::start(move |asked| {
        if asked.header("authorization").is_none() {
            return Some(Answer::Whole(
                401,
                vec![("WWW-Authenticate".to_owned(), "Basic realm=x".to_owned())],
                vec![],
            ));
        }
        if asked.path.contains("/blobs/") {
            let to = format!("http://127.0.0.1:{port}{}", asked.path);
            return Some(Answer::Whole(
                307,
                vec![("Location".to_owned(), to)],
                vec![],
            ));
        }
        here.answer(asked)
    });
    let s = TestStore::new(Who::Root);
    let pull = |creds: &str| {
        s.cmd([
            "pull",
            "-q",
            "--tls-verify=false",
            "--creds",
            creds,
            &r.name("x"),
        ])
    };
    pull(&format!("{USER}:{PASSWORD}")).ok();
    assert!(r.asked("/manifests/")[0].header("authorization").is_some());
    let followed = elsewhere.asked("/blobs/");
    assert_eq!(followed.len(), 2, "layer and configuration");
    for asked in followed {
        assert_eq!(asked.header("authorization"), None, "{asked:?}");
    }
    assert_eq!(listed(&s), 1);
    let told = s.cmd(["inspect", &r.name("x")]).ok();
    no_word_of_it(&json(&told).to_string());
}

#[test]
fn a_registry_that_wants_a_certificate_is_shown_one() {
    let Some(r) = Registry::mutual("a_registry_that_wants_a_certificate") else {
        return;
    };
    for who in Who::all() {
        let s = TestStore::new(who);
        let layer = s.file("l.tar", Archive::new().file("f", "f").end());
        s.cmd(["import"]).arg(layer).arg("x").ok();
        let name = r.name(&format!("mutual/{who:?}").to_lowercase());
        let on = |args: &[&str], certs: &std::path::Path| -> Cmd {
            s.cmd(args)
                .arg("--retry")
                .arg("0")
                .arg("--cert-dir")
                .arg(certs)
        };
        // It is trusted, and does not trust us.
        on(&["push", "x", &name], &r.certs())
            .run()
            .failed_clearly(1, &["certificate"]);
        on(&["push", "x", &name], &r.certs_of_old())
            .run()
            .failed_clearly(1, &["client.cert", "no certificate to show"]);
        on(&["push", "x", &name], &r.certs_to_show()).ok();
        on(&["pull", &name], &r.certs_to_show()).ok();
        // Half of what is to be shown.
        let half = s.directory("half");
        for file in ["ca.crt", "client.cert"] {
            let bytes = fs::read(r.certs_to_show().join(file)).expect("read");
            s.file(&format!("half/{file}"), bytes);
        }
        on(&["pull", &name], &half)
            .run()
            .failed_clearly(1, &["client.key"]);
    }
}

#[test]
fn an_identity_token_is_exchanged_for_a_token_of_the_registry() {
    const IDENTITY: &str = "an-identity-that-lasts";
    let made = Made::of(&[Archive::new().file("a", "a").end()]);
    let layer = made.clone();
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let own = std::sync::Arc::clone(&port);
    let r = Script::start(move |asked| {
        let refuse = |wants: Vec<(String, String)>| Some(Answer::Whole(401, wants, vec![]));
        if asked.path.starts_with("/token") {
            let form = String::from_utf8_lossy(&asked.body).into_owned();
            let grants = asked.method == "POST"
                && form.contains("grant_type=refresh_token")
                && form.contains(&format!("refresh_token={IDENTITY}"))
                && form.contains("scope=repository:x:pull")
                && form.contains("service=s");
            if !grants {
                return refuse(vec![]);
            }
            let given = br#"{"access_token":"short","expires_in":300}"#;
            return Some(Answer::Whole(200, vec![], given.to_vec()));
        }
        if asked.header("authorization") != Some("Bearer short") {
            let at = own.get().copied().unwrap_or(0_u16);
            let wants = format!(r#"Bearer realm="http://localhost:{at}/token",service="s""#);
            return refuse(vec![("WWW-Authenticate".to_owned(), wants)]);
        }
        layer.answer(asked)
    });
    port.set(r.port).expect("once");
    let s = TestStore::new(Who::User.missing().map_or(Who::User, |_| Who::Root));
    let auth = |token: &str| {
        let text = format!(
            r#"{{"auths": {{"localhost:{}": {{"auth": "PHRva2VuPjo=", "identitytoken": "{token}"}}}}}}"#,
            r.port
        );
        s.file("auth.json", text)
    };
    let pull = || {
        s.cmd(["pull", "-q", "--log-level", "trace", "--authfile"])
            .arg(s.path("auth.json"))
            .arg(r.name("x"))
            .run()
    };
    auth("another");
    let refused = pull();
    assert!(!refused.to_string().contains("another"), "{refused}");
    let refused = refused.exited(1);
    assert!(refused.err().contains("refuses"), "{refused}");
    auth(IDENTITY);
    let said = pull().succeeded();
    assert!(!said.to_string().contains(IDENTITY), "{said}");
    assert_eq!(listed(&s), 1);
    let asked = r.asked("/token");
    assert!(
        asked.iter().all(|a| !a.path.contains(IDENTITY)),
        "it is no part of an address: {asked:#?}"
    );
}
