//! Names of persons.
//!
//! A name has two to four words, each with a capital first letter and letters alone, or two to four Chinese characters of
//! which the first (or the first two) are a family name. Streets and firms look like that too; so a column is judged by how
//! many of its values hold a family or given name that many people have (see [`has_known_part`]).

/// The hundred most frequent Chinese family names of one character (census of 2020, Ministry of Public Security).
const CHINESE_SURNAMES: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫雷段龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常";
/// Chinese family names of two characters.
const CHINESE_DOUBLE_SURNAMES: [&str; 10] =
    ["欧阳", "上官", "司马", "诸葛", "东方", "皇甫", "尉迟", "公孙", "慕容", "令狐"];
/// Characters that stand in names of places, firms and things, and hardly ever in given names.
const NOT_OF_PERSONS: &str =
    "路街道区市县镇村站桥公司园校院楼厂店号湖河港局队部省州巷里机场所线层室库车站门中心广银行色雨雪云风温";

/// Frequent family and given names in Latin letters: of Finland, of English-, German-, Spanish-, French-, Italian- and
/// Scandinavian-speaking countries, and Chinese family names in pinyin.
const LATIN_PARTS: &[&str] = &[
    "virtanen",
    "korhonen",
    "nieminen",
    "mäkinen",
    "mäkelä",
    "hämäläinen",
    "laine",
    "heikkinen",
    "koskinen",
    "järvinen",
    "lehtonen",
    "lehtinen",
    "saarinen",
    "salminen",
    "heinonen",
    "niemi",
    "heikkilä",
    "kinnunen",
    "salonen",
    "turunen",
    "salo",
    "laitinen",
    "tuominen",
    "rantanen",
    "karjalainen",
    "jokinen",
    "mattila",
    "savolainen",
    "lahtinen",
    "ahonen",
    "johannes",
    "juhani",
    "mikael",
    "antero",
    "olavi",
    "tapani",
    "kalevi",
    "maria",
    "helena",
    "anneli",
    "johanna",
    "kaarina",
    "marjatta",
    "hannele",
    "liisa",
    "matti",
    "pekka",
    "jukka",
    "timo",
    "juha",
    "antti",
    "mika",
    "kari",
    "jari",
    "tuula",
    "anna",
    "ritva",
    "leena",
    "päivi",
    "sari",
    "minna",
    "tiina",
    "heikki",
    "hannu",
    "mikko",
    "petri",
    "ville",
    "sanna",
    "laura",
    "emma",
    "aino",
    "eino",
    "väinö",
    "elina",
    "outi",
    "satu",
    "tarja",
    "eeva",
    "riitta",
    "smith",
    "johnson",
    "williams",
    "brown",
    "jones",
    "garcia",
    "miller",
    "davis",
    "rodriguez",
    "martinez",
    "hernandez",
    "lopez",
    "gonzalez",
    "wilson",
    "anderson",
    "thomas",
    "taylor",
    "moore",
    "jackson",
    "martin",
    "lee",
    "perez",
    "thompson",
    "white",
    "harris",
    "sanchez",
    "clark",
    "ramirez",
    "lewis",
    "robinson",
    "walker",
    "young",
    "allen",
    "king",
    "wright",
    "scott",
    "torres",
    "nguyen",
    "hill",
    "flores",
    "green",
    "adams",
    "nelson",
    "baker",
    "hall",
    "rivera",
    "campbell",
    "mitchell",
    "carter",
    "roberts",
    "james",
    "john",
    "robert",
    "michael",
    "david",
    "william",
    "richard",
    "joseph",
    "charles",
    "christopher",
    "daniel",
    "matthew",
    "anthony",
    "mark",
    "donald",
    "steven",
    "paul",
    "andrew",
    "joshua",
    "kenneth",
    "kevin",
    "brian",
    "george",
    "mary",
    "patricia",
    "jennifer",
    "linda",
    "elizabeth",
    "barbara",
    "susan",
    "jessica",
    "sarah",
    "karen",
    "lisa",
    "nancy",
    "betty",
    "margaret",
    "sandra",
    "ashley",
    "kimberly",
    "emily",
    "donna",
    "michelle",
    "carol",
    "amanda",
    "müller",
    "schmidt",
    "schneider",
    "fischer",
    "weber",
    "meyer",
    "wagner",
    "becker",
    "schulz",
    "hoffmann",
    "peter",
    "klaus",
    "hans",
    "wolfgang",
    "jürgen",
    "stefan",
    "andreas",
    "ursula",
    "monika",
    "petra",
    "sabine",
    "karin",
    "renate",
    "helga",
    "dubois",
    "durand",
    "bernard",
    "petit",
    "moreau",
    "laurent",
    "simon",
    "michel",
    "jean",
    "pierre",
    "marie",
    "rossi",
    "russo",
    "ferrari",
    "esposito",
    "bianchi",
    "romano",
    "giuseppe",
    "giovanni",
    "francesca",
    "antonio",
    "jose",
    "carmen",
    "fernandez",
    "gomez",
    "carlos",
    "manuel",
    "hansen",
    "johansen",
    "olsen",
    "larsen",
    "andersen",
    "nilsen",
    "nielsen",
    "jensen",
    "pedersen",
    "andersson",
    "johansson",
    "karlsson",
    "nilsson",
    "eriksson",
    "larsson",
    "olsson",
    "lars",
    "erik",
    "anders",
    "karl",
    "ole",
    "ingrid",
    "ivanov",
    "petrov",
    "smirnov",
    "kowalski",
    "nowak",
    "kumar",
    "singh",
    "sharma",
    "patel",
    "khan",
    "ali",
    "mohammed",
    "ahmed",
    "hassan",
    "kim",
    "park",
    "tanaka",
    "suzuki",
    "sato",
    "wang",
    "zhang",
    "liu",
    "chen",
    "yang",
    "huang",
    "zhao",
    "zhou",
    "wu",
    "xu",
    "sun",
    "zhu",
    "guo",
    "gao",
    "luo",
    "liang",
    "xie",
];

/// Words that stand in names of streets, stops and firms; a value with one of them is no person's name.
const NOT_OF_PERSONS_LATIN: &[&str] = &[
    "street",
    "road",
    "avenue",
    "lane",
    "square",
    "park",
    "station",
    "bridge",
    "city",
    "north",
    "south",
    "east",
    "west",
    "centre",
    "center",
    "school",
    "church",
    "hospital",
    "university",
    "airport",
    "harbour",
    "market",
    "hall",
    "house",
    "inc",
    "ltd",
    "gmbh",
    "oy",
    "ab",
    "company",
    "bank",
    "hotel",
    "saint",
    "st",
    "platform",
    "terminal",
    "line",
    "bus",
    "tram",
    "gate",
];

/// Endings of Finnish, Swedish and German words for streets, squares, parks and the like.
const PLACE_ENDINGS: &[&str] = &[
    "katu", "tie", "kuja", "polku", "ranta", "rinne", "puisto", "tori", "aukio", "silta", "portti", "raitti",
    "kaari", "gatan", "vägen", "gränden", "stranden", "straße", "strasse", "platz", "weg", "allee", "burg",
    "niemi", "saari", "lahti", "talo",
];

fn is_chinese_character(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// Whether a text may be a person's name.
pub(super) fn is_name(value: &str) -> bool {
    if value.chars().any(is_chinese_character) { is_chinese_name(value) } else { is_latin_name(value) }
}

/// Two or three characters after a family name of one, or after one of two; a point between parts is that of names from
/// minorities.
fn is_chinese_name(value: &str) -> bool {
    let characters: Vec<char> = value.chars().filter(|c| !c.is_whitespace()).collect();
    if !characters.iter().all(|c| is_chinese_character(*c)) {
        return false;
    }
    let surname = if CHINESE_DOUBLE_SURNAMES.iter().any(|name| value.starts_with(name)) {
        2
    } else if CHINESE_SURNAMES.contains(characters[0]) {
        1
    } else {
        return false;
    };
    let given = &characters[surname.min(characters.len())..];
    (1..=2).contains(&given.len()) && !given.iter().any(|c| NOT_OF_PERSONS.contains(*c))
}

fn is_latin_name(value: &str) -> bool {
    let value = value.replace(", ", " ");
    let words: Vec<&str> = value.split(' ').collect();
    if !(2..=4).contains(&words.len()) || value.chars().count() > 50 {
        return false;
    }
    let particles = ["de", "da", "di", "von", "van", "der", "den", "la", "le", "af", "al", "bin", "el"];
    let word = |word: &&str| {
        let mut letters = word.chars();
        let initial = letters.next().is_some_and(char::is_uppercase);
        let rest = word.chars().skip(1).all(|c| c.is_alphabetic() || matches!(c, '-' | '\'' | '’' | '.'));
        // `A.` is an initial; a word in capitals alone is an abbreviation unless all are.
        (initial && rest) || particles.contains(word)
    };
    let lower: Vec<String> = words.iter().map(|word| word.trim_matches('.').to_lowercase()).collect();
    let of_places = lower.iter().any(|word| {
        NOT_OF_PERSONS_LATIN.contains(&word.as_str())
            || (word.chars().count() > 6
                && PLACE_ENDINGS.iter().any(|ending| word.ends_with(ending))
                && !LATIN_PARTS.contains(&word.as_str()))
    });
    let capitals = words.iter().filter(|word| word.chars().next().is_some_and(char::is_uppercase)).count();
    words.iter().all(word) && capitals >= 2 && !of_places
}

/// Whether a name holds a family or given name that many people have; every Chinese name that [`is_name`] takes does.
pub(super) fn has_known_part(value: &str) -> bool {
    if !is_name(value) {
        return false;
    }
    if value.chars().any(is_chinese_character) {
        return true;
    }
    value.split([' ', ',', '-']).map(str::to_lowercase).any(|word| LATIN_PARTS.contains(&word.as_str()))
}
