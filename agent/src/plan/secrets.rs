//! Which names are secrets. What they name is never read: not as a variable, not as a field, not in a condition.

/// Words that make a name a secret; each also with a plural `s`.
const WORDS: [&[&str]; 11] = [
    &["password"],
    &["passwd"],
    &["passphrase"],
    &["secret"],
    &["token"],
    &["apikey"],
    &["api", "key"],
    &["authorization"],
    &["credential"],
    &["private", "key"],
    &["privatekey"],
];

/// Whether a name is one of a secret: one of its words is (`dbPassword`, `API_KEY`, `Token`, but not `tokenizer`).
pub(super) fn is_secret(name: &str) -> bool {
    let words = words(name);
    WORDS.iter().any(|secret| {
        words.windows(secret.len()).any(|window| {
            window
                .iter()
                .zip(*secret)
                .all(|(word, secret)| word.strip_suffix('s').unwrap_or(word) == *secret || word == secret)
        })
    })
}

/// The words of an identifier, in lower case: cut at `_`, at other signs, and where capitals begin a word.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let characters: Vec<char> = name.chars().collect();
    let mut word = String::new();
    for (number, &character) in characters.iter().enumerate() {
        if !character.is_alphanumeric() {
            words.push(std::mem::take(&mut word));
            continue;
        }
        let before = number.checked_sub(1).and_then(|before| characters.get(before));
        let after = characters.get(number + 1);
        // `dbPassword`, and the last capital of `APIKey`.
        let begins = character.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_numeric())
                || before.is_some_and(|before| before.is_uppercase())
                    && after.is_some_and(|after| after.is_lowercase()));
        if begins {
            words.push(std::mem::take(&mut word));
        }
        word.extend(character.to_lowercase());
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_whole_words_of_a_name() {
        for name in [
            "password",
            "Password",
            "dbPassword",
            "DB_PASSWD",
            "userSecret",
            "secrets",
            "accessToken",
            "TOKEN",
            "apiKey",
            "APIKey",
            "api_key",
            "apikey",
            "Authorization",
            "credentials",
            "PrivateKey",
            "rsa_private_key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["tokenizer", "key", "api", "secretary", "author", "pass", "", "_", "privately", "keyPrivate"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
