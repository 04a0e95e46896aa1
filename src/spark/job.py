"""Batch job of pinpipe on Spark: runs the same SQL as the embedded engine, from a JSON file.

    spark-submit job.py PARAMETERS [RUN]

Reads the raw objects, counts rejected records, cleans the others, drops duplicates and answers the
questions. Writes each answer and the counts as Parquet to the output folder of the parameters, or
to its subfolder RUN.

Spark's JSON parser decodes ordinary lines: one record, with values of the expected types. Python
code decodes the others, by the rules of the embedded engine: a line alone, or the whole object if
its records do not end with its lines or its compressed data is damaged.
"""

import datetime
import decimal
import json
import math
import re
import sys
import zlib

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

# Maximum size of a record, in bytes.
MAX_RECORD_BYTES = 16 * 1024 * 1024
# Maximum levels of objects and arrays in a record.
MAX_DEPTH = 128
# Characters between records.
SEPARATORS = " \t\n\v\f\r,[]\ufeff"
GZIP = b"\x1f\x8b"
# Compressed bytes that are decompressed at a time.
PIECE_BYTES = 64 * 1024

NUMBER = "[+-]?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?"
TIME = (
    "([0-9]{4})-([0-9]{2})-([0-9]{2})([Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})([.][0-9]+)?"
    "([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
# Conditions, by column type, under which Spark converts a string as the decoder does. The decoder
# converts all other strings.
PLAIN = {
    "integer": "{c} RLIKE '^[+-]?[0-9]+$' AND TRY_CAST({c} AS INT) IS NOT NULL",
    "float": "{c} RLIKE '^" + NUMBER + "$' AND abs(TRY_CAST({c} AS DOUBLE)) < DOUBLE('Infinity')",
    # Spark accepts the year 0.
    "date_time": "{c} RLIKE '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]"
    "[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}([.][0-9]{{1,6}})?$'"
    " AND {c} >= '0001' AND TRY_CAST({c} AS TIMESTAMP) IS NOT NULL",
    "text": "true",
}
# TRY_CAST, because Spark may convert a value before it filters out the record.
TYPES = {
    "integer": "CAST(TRY_CAST(`{c}` AS INT) AS BIGINT)",
    "float": "TRY_CAST(`{c}` AS DOUBLE)",
    "date_time": "TRY_CAST(`{c}` AS TIMESTAMP)",
    "text": "`{c}`",
}
# A member after the record, which Spark reads only if nothing but the record precedes it.
END = "pinpipe_end"
# Spark's JSON parser accepts single quotes and NaN by default.
STRICT = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}


# The decoder. Spark sends these functions to its workers.


class Number(str):
    """A number of a JSON text, as it is written there."""


class Rejected(Exception):
    """The record is rejected, because it or one of its values is invalid."""


def decoder(columns):
    """Returns a function that decodes the bytes of an object to records.

    A record is a tuple: whether it is accepted, and the text of each column. All texts of a
    rejected record are null.
    """
    rejected = (False, *(None for _ in columns))

    def decode(content):
        data, is_damaged = gunzip(content) if content[:2] == GZIP else (bytes(content), False)
        # Bytes that are not UTF-8 become lone surrogates, which UTF-8 does not contain.
        text = data.decode("utf-8", "surrogateescape")
        decoded, is_open = [], False
        for record, is_open in split(text):
            try:
                decoded.append((True, *values(columns, record)))
            except Rejected:
                decoded.append(rejected)
        # Damage rejects one record. If it cuts off a record, that record is already rejected.
        if is_damaged and not is_open:
            decoded.append(rejected)
        return decoded

    return decode


def gunzip(content):
    """Decompresses all members of a gzip object. Returns the data before the first damage, and
    whether there is damage.
    """
    padding = re.compile(rb"[\0 \t\n\v\f\r]*")
    pieces, position = [], 0
    while position < len(content):
        if content[position : position + 2] != GZIP:
            return b"".join(pieces), True
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while not member.eof and position < len(content):
            piece = content[position : position + PIECE_BYTES]
            before = member.copy()
            try:
                pieces.append(member.decompress(piece))
            except zlib.error:
                # An error loses the output of the whole piece, so the piece is decompressed again
                # byte by byte up to the damage.
                try:
                    for at in range(len(piece)):
                        pieces.append(before.decompress(piece[at : at + 1]))
                except zlib.error:
                    return b"".join(pieces), True
            position += len(piece) - len(member.unused_data)
        if not member.eof:
            return b"".join(pieces), True
        position = padding.match(content, position).end()
    return b"".join(pieces), False


def split(text):
    """Yields a pair for each record of a text: the members of its JSON object, or `None` if the
    record is rejected, and whether the end of the text cuts off the record.
    """

    def refuse(constant):
        raise ValueError(constant)

    parser = json.JSONDecoder(
        object_pairs_hook=tuple, parse_float=Number, parse_int=Number, parse_constant=refuse
    )
    separators = re.compile(f"[{re.escape(SEPARATORS)}]*")
    tombstone = re.compile(f"null(?=[{re.escape(SEPARATORS)}]|\\Z)")
    # A record that is cut off ends before the next line that begins with one of these.
    next_start = re.compile(r"\n[ \t\r]*(?=[{\[])")
    start = separators.match(text).end()
    while start < len(text):
        record, end, is_tombstone, is_open = None, -1, False, False
        if text[start] == "{":
            record, end = read_object(parser, text, start)
        elif tombstone.match(text, start):
            end, is_tombstone = start + len("null"), True
        else:
            end = text.find("\n", start)
            if is_too_long(text, start, end):
                end = -1
        if end < 0:
            found = next_start.search(text, start)
            record, end, is_open = None, found.start() if found else len(text), not found
        if not is_tombstone:
            yield record, is_open
        start = separators.match(text, end).end()


def read_object(parser, text, start):
    """Returns the members of the JSON object at a position, `None` if it is not valid, and its end,
    -1 if the record is cut off.
    """
    try:
        record, end = parser.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, closing_brace(text, start)
    if re.search("[\udc80-\udcff]", text[start:end]):
        record = None
    brackets = text.count("{", start, end) + text.count("[", start, end)
    if brackets > MAX_DEPTH or is_too_long(text, start, end):
        end = closing_brace(text, start)
    return record, end


def is_too_long(text, start, end):
    """Returns whether a part of a text has more than 16 MiB in UTF-8."""
    # A character has at most 4 bytes.
    if end - start <= MAX_RECORD_BYTES // 4:
        return False
    return len(text[start:end].encode("utf-8", "surrogateescape")) > MAX_RECORD_BYTES


def closing_brace(text, start):
    """Returns the position after the brace that closes the one at `start`, -1 if the record is cut
    off before it.
    """
    token = re.compile(r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*("?)|[{}\[\]]|[^"{}\[\] \t\r\n]+')
    opened, previous = [], ""
    for found in token.finditer(text, start):
        first = text[found.start()]
        if first == '"' and not found[1]:
            return -1
        if first in "{[":
            # In JSON, a nested object follows one of these. Any other object is the next record.
            follows = previous in ("[", ":") or (previous == "," and opened[-1] == "[")
            if first == "{" and opened and not follows:
                return -1
            opened.append(first)
            if len(opened) > MAX_DEPTH:
                return -1
        elif first in "}]":
            if opened.pop() + first not in ("{}", "[]"):
                return -1
            if not opened:
                return -1 if is_too_long(text, start, found.end()) else found.end()
        previous = text[found.end() - 1]
    return -1


def values(columns, record):
    """Returns the text of each column of a record. Spark converts it to the type of the column."""
    if record is None:
        raise Rejected
    members = dict(record)
    if members.get(columns[0]["name"]) is None:
        raise Rejected
    halves = re.compile("[\ud800-\udfff]")
    texts = []
    for column in columns:
        value = members.get(column["name"])
        text = None if value is None else CONVERSIONS[column["type"]](value)
        texts.append(text and halves.sub("\ufffd", text))
    return texts


def integer_text(value):
    """Returns a 32-bit integer as digits."""
    if not isinstance(value, str) or not re.fullmatch(NUMBER, value):
        raise Rejected
    try:
        number = decimal.Decimal(value)
    except decimal.DecimalException:
        raise Rejected from None
    if not -(2**31) <= number < 2**31 or number != number.to_integral_value():
        raise Rejected
    return str(int(number))


def float_text(value):
    """Returns a finite 64-bit float as text."""
    if not isinstance(value, str) or not re.fullmatch(NUMBER, value):
        raise Rejected
    number = float(value)
    if not math.isfinite(number):
        raise Rejected
    return repr(number)


def time_text(value):
    """Returns a time in UTC, with microseconds."""
    found = re.fullmatch(TIME, value) if type(value) is str else None
    if not found:
        raise Rejected
    year, month, day, _, hour, minute, second, fraction, zone = found.groups()
    microsecond = (fraction or ".")[1:7].ljust(6, "0")
    parts = (year, month, day, hour or 0, minute or 0, second or 0, microsecond)
    offset_hours, offset_minutes = (zone[1:3], zone[4:6]) if zone and zone not in "Zz" else (0, 0)
    if int(offset_hours) > 23 or int(offset_minutes) > 59:
        raise Rejected
    offset = datetime.timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
    try:
        time = datetime.datetime(*map(int, parts))
        return (time + offset if zone and zone[0] == "-" else time - offset).isoformat(" ")
    except (ValueError, OverflowError):
        raise Rejected from None


def text_of(value):
    """Returns a string unchanged, and any other value as its JSON text."""
    return value if type(value) is str else json_text(value)


def json_text(value):
    """Returns the JSON text of a value without white space, with numbers as they were written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, tuple):
        members = (f"{json_text(name)}:{json_text(member)}" for name, member in value)
        return "{" + ",".join(members) + "}"
    return json.dumps(value, ensure_ascii=False)


CONVERSIONS = {
    "integer": integer_text,
    "float": float_text,
    "date_time": time_text,
    "text": text_of,
}


# The job.


def reader(spark, folder, form, **options):
    """Opens the objects of a folder and its subfolders."""
    # Hadoop reads the path as a pattern.
    path = re.sub(r"([\\{}\[\]*?])", r"\\\1", folder["path"])
    options = {"recursiveFileLookup": True, "pathGlobFilter": folder["files"], **options}
    return spark.read.format(form).options(**options).load(path)


def exists(spark, folder):
    """Returns whether the folder exists."""
    try:
        # Spark Connect opens the folder only when its columns are needed.
        return bool(reader(spark, folder, "text").columns)
    except AnalysisException as error:
        if "PATH_NOT_FOUND" in str(error):
            return False
        raise


def has_objects(spark, folder):
    """Returns whether the folder contains objects."""
    if not exists(spark, folder):
        return False
    return bool(reader(spark, folder, "binaryFile").select("path").head(1))


def lines(spark, kind, folder):
    """Returns the lines of a folder: the object, the line, its record with the text of each column,
    and how the line is decoded.

    - `spark`: it is one record, and Spark can convert its values.
    - `line`: the decoder decodes the line alone.
    - `object`: the decoder decodes the whole object.
    - `none`: it has no record.
    """
    names = [column["name"] for column in kind["columns"]]
    frame = reader(spark, folder, "text", lineSep="\n", wholetext=folder["is_one_record"])
    frame = frame.selectExpr(
        "_metadata.file_path AS object", "value", f"trim(BOTH '{SEPARATORS}' FROM value) AS body"
    )
    # Spark ignores what follows a JSON value. If it reads the added last element, nothing else
    # followed.
    wrapped = f.concat(f.lit("["), "body", f.lit(f',{{"{END}":true}}]'))
    columns = ", ".join(f"`{name}` STRING" for name in [*names, END])
    parsed = f.from_json(wrapped, f"ARRAY<STRUCT<{columns}>>", STRICT)
    frame = frame.select("object", "value", "body", parsed.alias("parsed"))
    body = f.col("body")
    is_record = f.expr(f"size(parsed) = 2 AND get(parsed, 1).{END} = 'true'") & ~body.contains(END)
    frame = frame.select(
        "object",
        "value",
        "body",
        f.expr("get(parsed, 0) AS record"),
        f.coalesce(is_record, f.lit(False)).alias("is_record"),
    )
    is_plain = [f"record.`{names[0]}` IS NOT NULL"]
    for column in kind["columns"]:
        value = f"record.`{column['name']}`"
        is_plain.append(f"({value} IS NULL OR ({PLAIN[column['type']].format(c=value)}))")
    is_plain = f.expr(" AND ".join(is_plain)) & ~is_unusual(body, kind)
    form = (
        f.when(body.isin("", "null"), "none")
        .when(f.octet_length(body) > MAX_RECORD_BYTES, "object")
        .when(f.col("is_record") & is_plain, "spark")
        .when(f.col("is_record") | ~body.rlike("^([{]|null|\x1f)"), "line")
        .otherwise("object")
    )
    return frame.select("object", "value", "record", form.alias("form"))


def is_unusual(body, kind):
    """Returns whether a record contains something that Spark reads differently than the decoder: a
    value other than a string in a text column, bytes that are not UTF-8, or a lone surrogate.
    """
    names = "|".join(column["name"] for column in kind["columns"] if column["type"] == "text")
    blanks = "[ \t\r\n]*"
    half = r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
    # One expression for all of them takes twice as long.
    has_half = (body.contains("\\ud") | body.contains("\\uD")) & body.rlike(half)
    is_not_text = body.rlike(f'"({names})"{blanks}:{blanks}[^"n \t\r\n]')
    return is_not_text | body.rlike("\ufffd") | has_half


def survey(frame):
    """Returns the number of lines that Spark decodes, whether there are lines for the decoder, and
    the objects that are decoded as a whole.
    """
    objects = frame.groupBy("object").agg(
        f.expr("count_if(form = 'spark') AS spark_lines"),
        f.expr("count_if(form = 'line') AS decoder_lines"),
        f.expr("count_if(form = 'object') > 0 AS is_whole"),
    )
    return objects.selectExpr(
        "coalesce(sum(CASE WHEN NOT is_whole THEN spark_lines END), 0) AS spark_lines",
        "coalesce(sum(CASE WHEN NOT is_whole THEN decoder_lines END), 0) AS decoder_lines",
        "collect_set(CASE WHEN is_whole THEN object END) AS objects",
    ).first()


def read(spark, kind):
    """Returns the accepted records of a kind, with the text of each column, the number of its
    records, and the number of rejects.
    """
    names = [f"`{column['name']}`" for column in kind["columns"]]
    schema = ", ".join(f"{name}: STRING" for name in names)
    schema = f"ARRAY<STRUCT<is_accepted: BOOLEAN, {schema}>>"
    # Not all machines with Spark have PyArrow.
    decode = f.udf(decoder(kind["columns"]), schema, useArrow=False)
    accepted, records, rejects = [], 0, 0
    for folder in kind["folders"]:
        if not exists(spark, folder):
            continue
        frame = lines(spark, kind, folder)
        contents = reader(spark, folder, "binaryFile")
        contents = contents.selectExpr("_metadata.file_path AS object", "content")
        try:
            found = survey(frame)
        except Exception:
            # Spark cannot decompress an object. The decoder can read the part before the damage. If
            # there is another cause, the next query fails with the same error.
            to_decode = contents.select("content")
        else:
            whole = f.col("object").isin(found["objects"])
            frame = frame.where(~whole)
            records += found["spark_lines"]
            # Inlined instead of filtered: to filter, Spark would parse each line again.
            record = f.expr("CASE WHEN form = 'spark' THEN array(record) END")
            by_spark = frame.select(f.inline_outer(record)).where(f"{names[0]} IS NOT NULL")
            accepted.append(by_spark.select(*names))
            if not found["decoder_lines"] and not found["objects"]:
                continue
            single = frame.where("form = 'line'").select(f.col("value").cast("binary"))
            to_decode = contents.where(whole).select("content").union(single)
        decoded = to_decode.select(f.inline_outer(decode("content")))
        decoded = decoded.where("is_accepted IS NOT NULL")
        counts = decoded.selectExpr(
            "count(*) AS records", "count_if(NOT is_accepted) AS rejects"
        ).first()
        records, rejects = records + counts["records"], rejects + counts["rejects"]
        accepted.append(decoded.where("is_accepted").select(*names))
    return accepted, records, rejects


def clean(spark, kind):
    """Creates the clean table of a kind as a view and returns its counts."""
    frames, records, rejects = read(spark, kind)
    names = ", ".join(f"`{column['name']}` STRING" for column in kind["columns"])
    frame = spark.createDataFrame([], names)
    for accepted in frames:
        frame = frame.union(accepted)
    columns = [
        f"{TYPES[column['type']].format(c=column['name'])} AS `{column['name']}`"
        for column in kind["columns"]
    ]
    frame.selectExpr(*columns).createOrReplaceTempView(f"raw_{kind['name']}")
    table = keep(spark.sql(f"SELECT DISTINCT * FROM ({kind['clean']}) c"))
    table.createOrReplaceTempView(f"clean_{kind['name']}")
    rows = table.count()
    return kind["name"], records, rejects, records - rejects - rows, rows


def keep(frame):
    """Caches a table if Spark supports it. Serverless Spark computes the table again instead."""
    try:
        return frame.cache()
    except PySparkException:
        return frame


def release(frame):
    """Removes a table from the cache."""
    try:
        frame.unpersist()
    except PySparkException:
        # It was not cached.
        pass


def configure(spark):
    """Changes the settings that affect the results. Serverless Spark refuses some of them."""
    settings = {
        "spark.sql.session.timeZone": "UTC",
        # The default since Spark 4.
        "spark.sql.ansi.enabled": "true",
        # The default format of times has no time zone and ends in the year 2262.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
        # The commit protocol of Databricks leaves files of failed attempts in the output folder,
        # and only Databricks can distinguish them from committed ones.
        "spark.sql.sources.commitProtocolClass": "org.apache.spark.sql.execution.datasources"
        ".SQLHadoopMapReduceCommitProtocol",
    }
    for name, value in settings.items():
        try:
            spark.conf.set(name, value)
        except PySparkException as error:
            print(f"cannot set {name}: {error}", file=sys.stderr)


def write(frame, folder):
    """Writes a table as one Parquet file."""
    frame.coalesce(1).write.mode("overwrite").parquet(folder)


def main(path, run=""):
    with open(path, encoding="utf-8") as file:
        parameters = json.load(file)
    spark = SparkSession.builder.appName("pinpipe batch").getOrCreate()
    configure(spark)
    counts = []
    for kind in parameters["kinds"]:
        counts.append(clean(spark, kind))
    folders = [folder for kind in parameters["kinds"] for folder in kind["folders"]]
    has_records = any(records for _, records, *_ in counts)
    if not has_records and not any(has_objects(spark, folder) for folder in folders):
        searched = ", ".join(dict.fromkeys(folder["path"] for folder in folders))
        raise RuntimeError(f"cannot read the lake: Spark found no objects in {searched}")
    post = keep(spark.sql(parameters["post"]))
    post.createOrReplaceTempView("post")
    out = f"{parameters['out']}/{run}" if run else parameters["out"]
    for question in parameters["questions"]:
        write(spark.sql(question["sql"]), f"{out}/{question['name']}")
    # Written last: if the counts exist, all answers exist.
    columns = "kind string, records bigint, rejects bigint, duplicates bigint, rows bigint"
    write(spark.createDataFrame(counts, columns), f"{out}/counts")
    # The session is not stopped, because other users of a cluster share it.
    release(post)
    for kind in parameters["kinds"]:
        release(spark.table(f"clean_{kind['name']}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
