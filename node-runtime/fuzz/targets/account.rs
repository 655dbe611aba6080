//! /etc/passwd and /etc/group as images have them, for users of images and of requests: what is found is in range.
#![no_main]
use berth_model::account::{Lines, PASSWD, User};
use berth_model::{Error, Result};
use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (image_user, passwd, group) = input;
    let user = User { image_user: image_user.to_owned(), ..User::default() };
    let open = |path: &str| -> Result<Lines> {
        let bytes = if path == PASSWD { passwd } else { group };
        Ok(Some(Box::new(Cursor::new(bytes.to_vec()))))
    };
    let names = user.needs_names();
    match user.resolve::<Error>(open) {
        Ok(account) => {
            assert!(names.is_ok() && account.uid != u32::MAX && !account.groups.contains(&u32::MAX));
            assert!(account.groups.contains(&account.gid) && account.home.starts_with(b"/"));
        }
        Err(error) => assert!(names.is_err() || !error.message().is_empty()),
    }
});
