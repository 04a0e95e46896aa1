//! Words the generated records are made of. No real record stands behind them.

/// Countries, as many as the real source has, in alphabetical order.
#[rustfmt::skip]
pub const COUNTRIES: [&str; 243] = [
    "Afghanistan", "Albania", "Algeria", "American Samoa", "Andorra", "Angola", "Anguilla", "Antigua and Barbuda", "Argentina",
    "Armenia", "Aruba", "Australia", "Austria", "Azerbaijan", "Bahamas", "Bahrain", "Bangladesh", "Barbados", "Belarus",
    "Belgium", "Belize", "Benin", "Bermuda", "Bhutan", "Bolivia", "Bosnia and Herzegovina", "Botswana", "Bouvet Island", "Brazil",
    "British Indian Ocean Territory", "British Virgin Islands", "Brunei", "Bulgaria", "Burkina Faso", "Burundi", "Cambodia",
    "Cameroon", "Canada", "Cape Verde", "Cayman Islands", "Central African Republic", "Chad", "Chile", "China",
    "Christmas Island", "Cocos Islands", "Colombia", "Comoros", "Congo", "Cook Islands", "Costa Rica", "Croatia", "Cuba",
    "Curacao", "Cyprus", "Czechia", "Democratic Republic of the Congo", "Denmark", "Djibouti", "Dominica", "Dominican Republic",
    "Ecuador", "Egypt", "El Salvador", "Equatorial Guinea", "Eritrea", "Estonia", "Eswatini", "Ethiopia", "Falkland Islands",
    "Faroe Islands", "Fiji", "Finland", "France", "French Guiana", "French Polynesia", "French Southern Territories", "Gabon",
    "Gambia", "Georgia", "Germany", "Ghana", "Gibraltar", "Greece", "Greenland", "Grenada", "Guadeloupe", "Guam", "Guatemala",
    "Guinea", "Guinea-Bissau", "Guyana", "Haiti", "Honduras", "Hong Kong", "Hungary", "Iceland", "India", "Indonesia", "Iran",
    "Iraq", "Ireland", "Isle of Man", "Israel", "Italy", "Ivory Coast", "Jamaica", "Japan", "Jersey", "Jordan", "Kazakhstan",
    "Kenya", "Kiribati", "Kuwait", "Kyrgyzstan", "Laos", "Latvia", "Lebanon", "Lesotho", "Liberia", "Libya", "Liechtenstein",
    "Lithuania", "Luxembourg", "Macao", "Madagascar", "Malawi", "Malaysia", "Maldives", "Mali", "Malta", "Marshall Islands",
    "Martinique", "Mauritania", "Mauritius", "Mayotte", "Mexico", "Micronesia", "Moldova", "Monaco", "Mongolia", "Montenegro",
    "Montserrat", "Morocco", "Mozambique", "Myanmar", "Namibia", "Nauru", "Nepal", "Netherlands", "New Caledonia", "New Zealand",
    "Nicaragua", "Niger", "Nigeria", "Niue", "Norfolk Island", "North Korea", "North Macedonia", "Northern Mariana Islands",
    "Norway", "Oman", "Pakistan", "Palau", "Palestine", "Panama", "Papua New Guinea", "Paraguay", "Peru", "Philippines",
    "Pitcairn Islands", "Poland", "Portugal", "Puerto Rico", "Qatar", "Reunion", "Romania", "Russia", "Rwanda",
    "Saint Barthelemy", "Saint Helena", "Saint Kitts and Nevis", "Saint Lucia", "Saint Martin", "Saint Pierre and Miquelon",
    "Saint Vincent and the Grenadines", "Samoa", "San Marino", "Sao Tome and Principe", "Saudi Arabia", "Senegal", "Serbia",
    "Seychelles", "Sierra Leone", "Singapore", "Sint Maarten", "Slovakia", "Slovenia", "Solomon Islands", "Somalia",
    "South Africa", "South Georgia", "South Korea", "South Sudan", "Spain", "Sri Lanka", "Sudan", "Suriname",
    "Svalbard and Jan Mayen", "Sweden", "Switzerland", "Syria", "Taiwan", "Tajikistan", "Tanzania", "Thailand", "Timor-Leste",
    "Togo", "Tokelau", "Tonga", "Trinidad and Tobago", "Tunisia", "Turkey", "Turkmenistan", "Turks and Caicos Islands", "Tuvalu",
    "Uganda", "Ukraine", "United Arab Emirates", "United Kingdom", "United States", "United States Virgin Islands", "Uruguay",
    "Uzbekistan", "Vanuatu", "Vatican City", "Venezuela", "Vietnam", "Wallis and Futuna", "Western Sahara", "Yemen", "Zambia",
    "Zimbabwe",
];

/// First names in alphabetical order.
#[rustfmt::skip]
pub const FIRST_NAMES: &[&str] = &[
    "Aaron", "Abigail", "Adam", "Adrian", "Alan", "Albert", "Alexander", "Alice", "Alicia", "Allison", "Amanda", "Amber", "Amy",
    "Andrea", "Andrew", "Angela", "Anna", "Anthony", "Antonio", "Ashley", "Barbara", "Benjamin", "Beth", "Brandon", "Brenda",
    "Brian", "Brittany", "Bruce", "Carl", "Carlos", "Carmen", "Carol", "Catherine", "Charles", "Cheryl", "Christina",
    "Christopher", "Cindy", "Claire", "Cory", "Courtney", "Crystal", "Daniel", "David", "Dawn", "Deborah", "Denise", "Diana",
    "Donald", "Dylan", "Edward", "Elena", "Elizabeth", "Emily", "Eric", "Erica", "Ethan", "Evan", "Frank", "Gabriel", "Gary",
    "George", "Gloria", "Grace", "Gregory", "Hannah", "Harold", "Heather", "Helen", "Henry", "Ian", "Isabel", "Jacob", "James",
    "Jamie", "Janet", "Jason", "Jennifer", "Jeremy", "Jesse", "Jessica", "John", "Jonathan", "Jose", "Joseph", "Joshua", "Juan",
    "Julia", "Karen", "Katherine", "Keith", "Kelly", "Kenneth", "Kevin", "Kimberly", "Kyle", "Laura", "Lauren", "Leah", "Linda",
    "Lisa", "Logan", "Luis", "Margaret", "Maria", "Mark", "Martin", "Mary", "Matthew", "Megan", "Melissa", "Michael", "Michelle",
    "Miguel", "Monica", "Nancy", "Natalie", "Nathan", "Nicholas", "Nicole", "Olivia", "Oscar", "Pamela", "Patricia", "Patrick",
    "Paul", "Peter", "Philip", "Rachel", "Raymond", "Rebecca", "Richard", "Robert", "Robin", "Roger", "Rosa", "Ruth", "Ryan",
    "Samantha", "Samuel", "Sandra", "Sarah", "Scott", "Sean", "Sharon", "Sofia", "Stephanie", "Stephen", "Steven", "Susan",
    "Tamara", "Teresa", "Thomas", "Tiffany", "Timothy", "Tina", "Todd", "Tyler", "Valerie", "Vanessa", "Victor", "Victoria",
    "Vincent", "Virginia", "Walter", "Wendy", "Whitney", "William", "Xavier", "Yvonne", "Zachary",
];

/// Last names in alphabetical order.
#[rustfmt::skip]
pub const LAST_NAMES: &[&str] = &[
    "Abbott", "Acosta", "Adams", "Adkins", "Aguilar", "Alexander", "Ali", "Allen", "Alvarez", "Anderson", "Andrews", "Armstrong",
    "Arnold", "Austin", "Bailey", "Baker", "Barnes", "Bates", "Bell", "Bennett", "Berry", "Black", "Bowman", "Boyd", "Bradley",
    "Brooks", "Brown", "Bryant", "Burke", "Butler", "Campbell", "Carlson", "Carpenter", "Carter", "Castillo", "Castro", "Chavez",
    "Chen", "Clark", "Coleman", "Collins", "Cook", "Cooper", "Cox", "Crawford", "Cruz", "Cunningham", "Daniels", "Davis", "Dean",
    "Diaz", "Dixon", "Douglas", "Duncan", "Edwards", "Elliott", "Ellis", "Evans", "Ferguson", "Fernandez", "Fisher", "Fleming",
    "Flores", "Ford", "Foster", "Fox", "Franklin", "Freeman", "Garcia", "Gibson", "Gomez", "Gonzalez", "Gordon", "Graham",
    "Grant", "Gray", "Green", "Griffin", "Guzman", "Hall", "Hamilton", "Hansen", "Harper", "Harris", "Hart", "Hayes", "Henderson",
    "Hernandez", "Hicks", "Hill", "Holmes", "Howard", "Hudson", "Hughes", "Hunt", "Hunter", "Jackson", "Jacobs", "James",
    "Jenkins", "Jensen", "Johnson", "Jones", "Jordan", "Kelley", "Kelly", "Kennedy", "Kim", "King", "Knight", "Lane", "Larson",
    "Lawrence", "Lee", "Lewis", "Li", "Long", "Lopez", "Lynch", "Marshall", "Martin", "Martinez", "Mason", "Matthews", "Medina",
    "Mendoza", "Meyer", "Miller", "Mitchell", "Moore", "Morales", "Morgan", "Morris", "Murphy", "Myers", "Nelson", "Nguyen",
    "Nichols", "Obrien", "Oliver", "Olson", "Ortiz", "Owens", "Palmer", "Parker", "Patel", "Patterson", "Perez", "Perkins",
    "Perry", "Peters", "Peterson", "Phillips", "Pierce", "Porter", "Powell", "Price", "Ramirez", "Ramos", "Reed", "Reyes",
    "Reynolds", "Rice", "Richards", "Richardson", "Rivera", "Roberts", "Robinson", "Rodriguez", "Rogers", "Romero", "Rose",
    "Ross", "Russell", "Ryan", "Sanchez", "Sanders", "Schmidt", "Scott", "Shaw", "Silva", "Simmons", "Simpson", "Sims", "Smith",
    "Snyder", "Soto", "Spencer", "Stephens", "Stevens", "Stewart", "Stone", "Sullivan", "Taylor", "Thomas", "Thompson", "Torres",
    "Tran", "Tucker", "Turner", "Vargas", "Vasquez", "Wagner", "Walker", "Wallace", "Ward", "Warren", "Washington", "Watkins",
    "Watson", "Webb", "Weber", "Wells", "West", "Wheeler", "White", "Williams", "Williamson", "Wilson", "Wong", "Wood", "Wright",
    "Wu", "Yang", "Young", "Zamora", "Zimmerman",
];

/// A category: its name, its posts among 11,154, its subjects.
pub struct Category {
    pub name: &'static str,
    pub posts: u32,
    pub subjects: [&'static str; 10],
}

/// The thirteen categories, in the order of their row numbers.
pub const CATEGORIES: [Category; 13] = [
    Category {
        name: "art",
        posts: 893,
        subjects: ["sketch", "watercolor", "canvas", "portrait", "mural", "charcoal", "palette", "sculpture", "gallery", "perspective"],
    },
    Category {
        name: "beauty",
        posts: 744,
        subjects: ["skincare", "lipstick", "hairstyle", "nail polish", "eyeshadow", "serum", "moisturizer", "braids", "contour", "blush"],
    },
    Category {
        name: "christmas",
        posts: 1000,
        subjects: [
            "ornament",
            "wreath",
            "stocking",
            "garland",
            "gingerbread",
            "mistletoe",
            "advent calendar",
            "snowman",
            "tree topper",
            "gift wrap",
        ],
    },
    Category {
        name: "diy-and-crafts",
        posts: 830,
        subjects: ["crochet", "macrame", "origami", "candle", "felt", "resin", "clay", "yarn", "paper flowers", "mason jar"],
    },
    Category {
        name: "education",
        posts: 863,
        subjects: [
            "worksheet",
            "phonics",
            "classroom",
            "lesson plan",
            "multiplication",
            "reading log",
            "science project",
            "flashcard",
            "bulletin board",
            "handwriting",
        ],
    },
    Category {
        name: "event-planning",
        posts: 748,
        subjects: [
            "invitation",
            "centerpiece",
            "guest list",
            "balloon arch",
            "venue",
            "menu card",
            "seating chart",
            "party favor",
            "backdrop",
            "baby shower",
        ],
    },
    Category {
        name: "finance",
        posts: 789,
        subjects: [
            "budget",
            "savings",
            "dividend",
            "side hustle",
            "debt payoff",
            "emergency fund",
            "passive income",
            "credit score",
            "index fund",
            "spreadsheet",
        ],
    },
    Category {
        name: "home-decor",
        posts: 864,
        subjects: [
            "bookshelf",
            "throw pillow",
            "gallery wall",
            "farmhouse",
            "entryway",
            "rug",
            "accent wall",
            "curtain",
            "houseplant",
            "fireplace",
        ],
    },
    Category {
        name: "mens-fashion",
        posts: 845,
        subjects: ["blazer", "sneakers", "denim", "suit", "watch", "beard", "loafers", "streetwear", "overcoat", "knitwear"],
    },
    Category {
        name: "quotes",
        posts: 909,
        subjects: [
            "motivation",
            "self love",
            "wisdom",
            "gratitude",
            "heartbreak",
            "friendship",
            "mindset",
            "courage",
            "happiness",
            "patience",
        ],
    },
    Category {
        name: "tattoos",
        posts: 974,
        subjects: ["sleeve", "linework", "mandala", "dragon", "minimalist", "rose", "geometric", "lettering", "wolf", "compass"],
    },
    Category {
        name: "travel",
        posts: 856,
        subjects: [
            "itinerary",
            "island",
            "road trip",
            "backpacking",
            "waterfall",
            "old town",
            "hidden gem",
            "packing list",
            "national park",
            "street food",
        ],
    },
    Category {
        name: "vehicles",
        posts: 839,
        subjects: [
            "motorcycle",
            "camper van",
            "sports car",
            "pickup",
            "restoration",
            "convertible",
            "off road",
            "electric",
            "engine",
            "vintage truck",
        ],
    },
];

/// What a title says about its subject.
pub const ADJECTIVES: &[&str] = &[
    "easy",
    "simple",
    "modern",
    "beautiful",
    "creative",
    "unique",
    "rustic",
    "elegant",
    "cozy",
    "colorful",
    "clever",
    "timeless",
    "bold",
    "classic",
    "inspiring",
];

/// What a title offers.
pub const OFFERS: &[&str] = &[
    "ideas",
    "inspiration",
    "tips for beginners",
    "projects to try",
    "looks you will love",
    "hacks",
    "designs",
    "made simple",
    "for every season",
    "step by step",
];

/// Sentences of descriptions; `{}` is the subject.
pub const SENTENCES: &[&str] = &[
    "Discover the best {} for your next weekend.",
    "Save this {} guide for later and share it with a friend.",
    "We tried every {} so that you do not have to.",
    "A full list of {} with pictures and instructions.",
    "Looking for {}? These are the ones our readers come back to again and again.",
    "It takes less than an hour, costs almost nothing, and the {} turns out great.",
    "Learn how to get started with {} today.",
];

/// Decorations of titles, as real ones have: emoji, Greek, Cyrillic.
pub const DECORATIONS: &[&str] = &["✨", "🎄", "💕", "🔥", "Ιδέες", "Идеи", "🌿", "«»"];

/// Endings of posters' names.
pub const BRANDS: &[&str] = &["Studio", "Blog", "& Co", "Daily", "Collective", "Magazine", "Home", "Shop", "Journal", "Diaries"];
