
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Unit test of the webhook room: formats, what is malformed, locators and
 * values, Particle's documented requests, and, against jansson's own tree,
 * the spans in random documents.
 */

#include "tap.h"

#include <jansson.h>
#include <time.h>

#include "ngx_http_iothub_webhook.h"


#define JSON_FLAGS  (JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL)

#define S(text)     { sizeof(text) - 1, (u_char *) text }

#define NO_BODY     NGX_HTTP_IOTHUB_NO_BODY
#define JSON        NGX_HTTP_IOTHUB_JSON
#define FORM        NGX_HTTP_IOTHUB_FORM
#define RAW         NGX_HTTP_IOTHUB_RAW

#define STRING      NGX_HTTP_IOTHUB_STRING
#define NUMBER      NGX_HTTP_IOTHUB_NUMBER
#define TRUE        NGX_HTTP_IOTHUB_TRUE
#define FALSE       NGX_HTTP_IOTHUB_FALSE
#define NULL_       NGX_HTTP_IOTHUB_NULL
#define OBJECT      NGX_HTTP_IOTHUB_OBJECT
#define ARRAY       NGX_HTTP_IOTHUB_ARRAY

#define FOUND(raw, text)  S(raw), S(text)
#define NOT_THERE         ngx_null_string, ngx_null_string
#define BROKEN(reason)    ngx_null_string, S(reason)


typedef struct {
    const char                *type;
    ngx_str_t                  body;
    ngx_int_t                  rc;
    ngx_http_iothub_format_e   format;
} format_case_t;


typedef struct {
    ngx_str_t                  body;
    const char                *reason;   /* NULL: fine */
} body_case_t;


typedef struct {
    const char                *text;
    ngx_int_t                  kind;     /* -1: refused */
    const char                *name;     /* steps are separated by | */
    const char                *reason;   /* a part of it */
} locator_case_t;


typedef struct {
    const char                *locator;
    ngx_http_iothub_type_e     type;
    ngx_str_t                  raw;
    ngx_str_t                  text;     /* without raw: the reason */
} value_case_t;


typedef struct {
    ngx_str_t                  text;
    ngx_str_t                  json;     /* null: it is none */
} embed_case_t;


typedef struct {
    u_char                    *p;
    u_char                    *last;
    ngx_uint_t                 names;
} generator_t;


static ngx_pool_t  *pool;
static uint64_t     seed;


static format_case_t  formats[] = {
    { "application/json", S("{}"), NGX_OK, JSON },
    { "application/json", S(""), NGX_OK, JSON },
    { "application/json", S("a=b"), NGX_OK, JSON },
    { "APPLICATION/Json", S("{}"), NGX_OK, JSON },
    { " application/json ", S("{}"), NGX_OK, JSON },
    { "application/json;charset=utf-8", S("{}"), NGX_OK, JSON },
    { "application/json; charset=utf-8", S("{}"), NGX_OK, JSON },
    { "application/json ; Charset=\"UTF-8\" ", S("{}"), NGX_OK, JSON },
    { "application/json; charset=us-ascii", S("{}"), NGX_OK, JSON },
    { "application/json; charset=UTF8", S("{}"), NGX_OK, JSON },
    { "application/json;", S("{}"), NGX_OK, JSON },
    { "application/json; a=\"x;charset=latin1\"; b=c", S("{}"), NGX_OK, JSON },
    { "application/json; a=\"\\\";charset=latin1\"", S("{}"), NGX_OK, JSON },
    { "application/json; charset=\"utf-8\"; a", S("{}"), NGX_OK, JSON },
    { "application/json; charsets=latin1", S("{}"), NGX_OK, JSON },
    { "application/json; charset=utf-16", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=utf-80", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=\"utf-8", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=\"utf-8\\", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=\"", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=\"utf-8\"x", S("{}"), NGX_DECLINED, 0 },
    { "application/json; a=b; charset=iso-8859-1", S("{}"), NGX_DECLINED, 0 },
    { "application/json; charset=utf-8; charset=x", S("{}"), NGX_DECLINED, 0 },
    { "text/json", S("{}"), NGX_OK, JSON },
    { "application/cloudevents+json; charset=UTF-8", S("{}"), NGX_OK, JSON },
    { "application/vnd.api+JSON", S("{}"), NGX_OK, JSON },
    { "application/a+json", S("{}"), NGX_OK, JSON },
    { "application/+json", S("{}"), NGX_DECLINED, 0 },
    { "+json", S("{}"), NGX_DECLINED, 0 },
    { "/a+json", S("{}"), NGX_DECLINED, 0 },
    { "application/json, application/a+json", S("{}"), NGX_DECLINED, 0 },
    { "application/json application/a+json", S("{}"), NGX_DECLINED, 0 },
    { "application/jsonp", S("{}"), NGX_DECLINED, 0 },
    { "application/json-seq", S("{}"), NGX_DECLINED, 0 },
    { "application", S("{}"), NGX_DECLINED, 0 },
    { "application/", S("{}"), NGX_DECLINED, 0 },
    { ";", S("{}"), NGX_DECLINED, 0 },
    { "text/plain", S("{}"), NGX_DECLINED, 0 },
    { "multipart/form-data; boundary=x", S("a=b"), NGX_DECLINED, 0 },
    { "application/octet-stream", S(""), NGX_DECLINED, 0 },
    { "application/x-www-form-urlencoded", S("{}"), NGX_OK, FORM },
    { "Application/X-WWW-Form-Urlencoded; charset=UTF-8", S("a=b"), NGX_OK,
      FORM },
    { "application/x-www-form-urlencoded; charset=latin1", S("a=b"),
      NGX_DECLINED, 0 },
    { "application/x-www-form-urlencode", S("a=b"), NGX_DECLINED, 0 },
    { NULL, S(""), NGX_OK, NO_BODY },
    { NULL, S("{"), NGX_OK, JSON },
    { NULL, S(" \r\n\t["), NGX_OK, JSON },
    { NULL, S("event=demo"), NGX_OK, FORM },
    { NULL, S("\"{\""), NGX_OK, FORM },
    { NULL, S(" "), NGX_OK, FORM },
    { "", S(""), NGX_OK, NO_BODY },
    { "", S("{}"), NGX_OK, JSON },
    { " ", S("a"), NGX_OK, FORM }
};


static body_case_t  json_bodies[] = {
    { S("{}"), NULL },
    { S("[]"), NULL },
    { S(" \r\n\t{ } \r\n\t"), NULL },
    { S("{\"a\":18446744073709551616}"), NULL },
    { S("{\"a\":-0,\"b\":1E+2,\"c\":1e-400,\"d\":0.10}"), NULL },
    { S("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}]}"), NULL },
    { S("{\"\":1}"), NULL },
    { S("[\"\\ud83d\\ude00\\u007f\\u0001\"]"), NULL },
    { S("[\"\xf0\x9f\x98\x80\xc2\x80\xe2\x80\xa8\xf4\x8f\xbf\xbf\"]"), NULL },
    { S(""), "empty text" },
    { S(" \n"), "empty text" },
    { S("1"), "neither a JSON object nor an array" },
    { S("\"a\""), "neither a JSON object nor an array" },
    { S("null"), "neither a JSON object nor an array" },
    { S("event=demo"), "neither a JSON object nor an array" },
    { S("\xef\xbb\xbf{}"), "byte order mark" },
    { S("\xff\xfe{}"), "bad UTF-8" },
    { S("{"), "JSON ends too early" },
    { S("[1,"), "JSON ends too early" },
    { S("[1"), "JSON ends too early" },
    { S("{\"a\":\"b"), "JSON ends too early" },
    { S("{\"a\""), "JSON ends too early" },
    { S("{}{}"), "text after the JSON value" },
    { S("[] x"), "text after the JSON value" },
    { S("{\"a\":1}}"), "text after the JSON value" },
    { S("{a:1}"), "not JSON" },
    { S("{'a':1}"), "not JSON" },
    { S("[1,]"), "not JSON" },
    { S("[1 2]"), "not JSON" },
    { S("{\"a\":1,}"), "not JSON" },
    { S("{\"a\" 1}"), "not JSON" },
    { S("[01]"), "not JSON" },
    { S("[1.]"), "not JSON" },
    { S("[.5]"), "not JSON" },
    { S("[+1]"), "not JSON" },
    { S("[NaN]"), "not JSON" },
    { S("[Infinity]"), "not JSON" },
    { S("[tru]"), "not JSON" },
    { S("[True]"), "not JSON" },
    { S("[1}"), "not JSON" },
    { S("[/* */]"), "not JSON" },
    { S("[\"\\x\"]"), "not JSON" },
    { S("[\"\\u12g4\"]"), "not JSON" },
    { S("[\"\\ud800\"]"), "not JSON" },
    { S("[\"\\udc00\"]"), "not JSON" },
    { S("[\"\\ud800\\u0041\"]"), "not JSON" },
    { S("[\"a\nb\"]"), "not JSON" },
    { S("[\"\x1f\"]"), "not JSON" },
    { S("{\"a\":1,\"a\":1}"), "duplicate member" },
    { S("{\"a\":1,\"b\":2,\"\\u0061\":3}"), "duplicate member" },
    { S("[{\"b\":[{\"a\":1,\"a\":2}]}]"), "duplicate member" },
    { S("{\"\":1,\"\":2}"), "duplicate member" },
    { S("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}"), "duplicate member" },
    { S("[\"\xff\"]"), "bad UTF-8" },
    { S("[\"\xc0\x80\"]"), "bad UTF-8" },
    { S("[\"\xc3\xc3\"]"), "bad UTF-8" },
    { S("[\"\xed\xa0\x80\"]"), "bad UTF-8" },
    { S("[\"\xe0\x80\x80\"]"), "bad UTF-8" },
    { S("[\"\xf4\x90\x80\x80\"]"), "bad UTF-8" },
    { S("[\"\xc3\"]"), "bad UTF-8" },
    { S("{\"\x80\":1}"), "bad UTF-8" },
    { S("[1\xff]"), "bad UTF-8" },
    { S("[1e400]"), "number out of range" },
    { S("{\"a\":-1e400}"), "number out of range" },
    { S("[\"\\u0000\"]"), "NUL character" },
    { S("{\"a\\u0000b\":1}"), "NUL character" },
    { S("[\"a\0b\"]"), "NUL character" },
    { S("{}\0"), "NUL character" },
    { S("\0{}"), "NUL character" },
    { S("[\0]"), "NUL character" },
    { S("{\"a\0\":1}"), "NUL character" },

    /* these jansson itself would accept */
    { S("{\"a\":1\0}"), "NUL character" },
    { S("[1\0,2]"), "NUL character" },
    { S("[true\0]"), "NUL character" },
    { S("[null\0 ]"), "NUL character" },
    { S("[1e5\0]"), "NUL character" }
};


static body_case_t  form_bodies[] = {
    { S(""), NULL },
    { S("&"), NULL },
    { S("&&a=b&&&c=d&&"), NULL },
    { S("a"), NULL },
    { S("="), NULL },
    { S("=&a="), NULL },
    { S("a=b=c"), NULL },
    { S("a=%41%4a%4A"), NULL },
    { S("a=%c3%a9&b=\xc3\xa9"), NULL },
    { S("a=%01%0a%7f"), NULL },
    { S("a&A"), NULL },
    { S("a=1&%2561=2"), NULL },
    { S("a=%"), "bad percent escape" },
    { S("a=%4"), "bad percent escape" },
    { S("a=%4&b=1"), "bad percent escape" },
    { S("a=%4g"), "bad percent escape" },
    { S("a=%-1"), "bad percent escape" },
    { S("a=%+1"), "bad percent escape" },
    { S("a=%u0041"), "bad percent escape" },
    { S("%zz=a"), "bad percent escape" },
    { S("a=100%&b=c"), "bad percent escape" },
    { S("a=%00"), "NUL character" },
    { S("%00=a"), "NUL character" },
    { S("a=b\0c"), "NUL character" },
    { S("a\0=b"), "NUL character" },
    { S("a=%ff"), "bad UTF-8" },
    { S("a=\xff"), "bad UTF-8" },
    { S("%c3=a"), "bad UTF-8" },
    { S("a=%c3&b=%a9"), "bad UTF-8" },
    { S("a=%c3%c3"), "bad UTF-8" },
    { S("a=%c1%bf"), "bad UTF-8" },
    { S("a=%e0%9f%bf"), "bad UTF-8" },
    { S("a=%ed%a0%80"), "bad UTF-8" },
    { S("a=%f0%8f%bf%bf"), "bad UTF-8" },
    { S("a=%f4%90%80%80"), "bad UTF-8" },
    { S("a=%f5%80%80%80"), "bad UTF-8" },
    { S("a=%80"), "bad UTF-8" },
    { S("a=%e2%82"), "bad UTF-8" },
    { S("a=%e2%82%c0"), "bad UTF-8" },
    { S("a=%f0%9f%98"), "bad UTF-8" },
    { S("a=01234567890123456789012345678901%ff"), "bad UTF-8" },
    { S("a=0123456\xff""01234567"), "bad UTF-8" },
    { S("a=%ed%9f%bf%ee%80%80%f4%8f%bf%bf%e0%a0%80%f0%90%80%80"), NULL },
    { S("a=1&a=1"), "two pairs of one name" },
    { S("a&a"), "two pairs of one name" },
    { S("=1&=2"), "two pairs of one name" },
    { S("a=1&b=2&%61=3"), "two pairs of one name" },
    { S("a+b=1&c=2&a%20b=3"), "two pairs of one name" }
};


static locator_case_t  locators[] = {
    { "json:/a/b", NGX_HTTP_IOTHUB_LOCATOR_JSON, "a|b", NULL },
    { "/a/b", NGX_HTTP_IOTHUB_LOCATOR_JSON, "a|b", NULL },
    { "/", NGX_HTTP_IOTHUB_LOCATOR_JSON, "", NULL },
    { "/a/", NGX_HTTP_IOTHUB_LOCATOR_JSON, "a|", NULL },
    { "//", NGX_HTTP_IOTHUB_LOCATOR_JSON, "|", NULL },
    { "json:", NGX_HTTP_IOTHUB_LOCATOR_JSON, NULL, NULL },
    { "/~0~1/~01", NGX_HTTP_IOTHUB_LOCATOR_JSON, "~/|~1", NULL },
    { "/a:b/form:c", NGX_HTTP_IOTHUB_LOCATOR_JSON, "a:b|form:c", NULL },
    { "form:a", NGX_HTTP_IOTHUB_LOCATOR_FORM, "a", NULL },
    { "form:/a:b c", NGX_HTTP_IOTHUB_LOCATOR_FORM, "/a:b c", NULL },
    { "query:a", NGX_HTTP_IOTHUB_LOCATOR_QUERY, "a", NULL },
    { "header:X-Device-Id", NGX_HTTP_IOTHUB_LOCATOR_HEADER, "X-Device-Id",
      NULL },
    { "body", NGX_HTTP_IOTHUB_LOCATOR_BODY, "", NULL },
    { "coreid", NGX_HTTP_IOTHUB_LOCATOR_NAME, "coreid", NULL },
    { "json", NGX_HTTP_IOTHUB_LOCATOR_NAME, "json", NULL },
    { "body2", NGX_HTTP_IOTHUB_LOCATOR_NAME, "body2", NULL },
    { "a b~c", NGX_HTTP_IOTHUB_LOCATOR_NAME, "a b~c", NULL },
    { "", -1, NULL, "name is empty" },
    { "form:", -1, NULL, "name is empty" },
    { "query:", -1, NULL, "name is empty" },
    { "header:", -1, NULL, "name is empty" },
    { "header:a b", -1, NULL, "no header" },
    { "header:a:", -1, NULL, "no header" },
    { "header:\xc3\xa9", -1, NULL, "no header" },
    { "json:a", -1, NULL, "start with" },
    { "a/b", -1, NULL, "start with" },
    { "JSON:/a", -1, NULL, "has to be" },
    { "cookie:a", -1, NULL, "has to be" },
    { "body:", -1, NULL, "has to be" },
    { "/a~", -1, NULL, "~0" },
    { "/~2/b", -1, NULL, "~0" },
    { "json:/a/~", -1, NULL, "~0" },
    { "/~/0", -1, NULL, "~0" }
};


/* from Particle's documentation of webhooks, section "Default data" */

#define PARTICLE                                                              \
    "event=demo&data=mydata&published_at=2017-02-01T21%3A08%3A05.763Z"        \
    "&coreid=3f002b000000000000000000"

static value_case_t  particle_pairs[] = {
    { "event", STRING, FOUND("demo", "demo") },
    { "data", STRING, FOUND("mydata", "mydata") },
    { "published_at", STRING, FOUND("2017-02-01T21%3A08%3A05.763Z",
                                    "2017-02-01T21:08:05.763Z") },
    { "coreid", STRING, FOUND("3f002b000000000000000000",
                              "3f002b000000000000000000") },
    { "event_id", STRING, NOT_THERE },
    { "/event", STRING, NOT_THERE },
    { "header:event", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


static value_case_t  particle_form[] = {
    { "form:event", STRING, FOUND("demo", "demo") },
    { "query:event", STRING, NOT_THERE },
    { "json:/event", STRING, NOT_THERE },
    { "body", STRING, FOUND(PARTICLE, PARTICLE) },
    { NULL, 0, NOT_THERE }
};


static value_case_t  particle_query[] = {
    { "form:event", STRING, NOT_THERE },
    { "query:event", STRING, FOUND("demo", "demo") },
    { "query:published_at", STRING, FOUND("2017-02-01T21%3A08%3A05.763Z",
                                          "2017-02-01T21:08:05.763Z") },
    { "body", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


#define PARTICLE_JSON                                                         \
    "{\"event\":\"demo\",\"data\":\"mydata\","                                \
    "\"coreid\":\"3f002b000000000000000000\","                                \
    "\"published_at\":\"2017-02-01T21:08:05.763Z\"}"

static value_case_t  particle_json[] = {
    { "event", STRING, FOUND("\"demo\"", "demo") },
    { "/data", STRING, FOUND("\"mydata\"", "mydata") },
    { "coreid", STRING, FOUND("\"3f002b000000000000000000\"",
                              "3f002b000000000000000000") },
    { "published_at", STRING, FOUND("\"2017-02-01T21:08:05.763Z\"",
                                    "2017-02-01T21:08:05.763Z") },
    { "event_id", STRING, NOT_THERE },
    { "form:event", STRING, NOT_THERE },
    { "json:", OBJECT, FOUND(PARTICLE_JSON, PARTICLE_JSON) },
    { "body", OBJECT, FOUND(PARTICLE_JSON, PARTICLE_JSON) },
    { NULL, 0, NOT_THERE }
};


/* the recommended template, with data as a JSON text in a string */

#define PARTICLE_CUSTOM                                                       \
    "{\"event\":\"occupancy\",\"data\":\"{\\\"count\\\":5}\","                \
    "\"coreid\":\"e00fce68d0f8f8e5c7c3f0a9\","                                \
    "\"published_at\":\"2026-06-26T14:30:00.000Z\","                          \
    "\"event_id\":\"5a8ef38c\\u002db85f\",\"product_id\":\"1\","              \
    "\"fw_version\":\"1.2.3\",\"userid\":\"\",\"public\":false}"

static value_case_t  particle_custom[] = {
    { "data", STRING, FOUND("\"{\\\"count\\\":5}\"", "{\"count\":5}") },
    { "event_id", STRING, FOUND("\"5a8ef38c\\u002db85f\"", "5a8ef38c-b85f") },
    { "fw_version", STRING, FOUND("\"1.2.3\"", "1.2.3") },
    { "userid", STRING, FOUND("\"\"", "") },
    { "public", FALSE, FOUND("false", "false") },
    { NULL, 0, NOT_THERE }
};


/* telegraf's test body: data is an object, numbers keep their digits */

#define LEGACY_VALUES                                                         \
    "{\n      \"temp_c\": 26.680000,\n      \"temp_f\": 80.024001,\n"         \
    "      \"humidity\": 44.937500,\n      \"pressure\": 998.998901,\n"       \
    "      \"infrared\": 528.000000, \"lux\": 0\n    }"

#define LEGACY_DATA                                                           \
    "{\n    \"tags\": { \"id\": \"230035001147343438323536\",\n"              \
    "      \"location\": \"TravelingWilbury\" },\n    \"values\": "           \
    LEGACY_VALUES "\n  }"

#define LEGACY                                                                \
    "\n{\n  \"event\": \"temperature\",\n  \"data\": " LEGACY_DATA ",\n"      \
    "  \"ttl\": 60,\n  \"published_at\": \"2017-09-28T21:54:10.897Z\",\n"     \
    "  \"coreid\": \"123456789938323536\",\n"                                 \
    "  \"userid\": \"1234ee123ac8e5ec1231a123d\",\n  \"version\": 10,\n"      \
    "  \"public\": false,\n  \"productID\": 1234,\n  \"name\": \"sensor\",\n" \
    "  \"measurement\": \"mydata\"\n}\n"

static value_case_t  particle_legacy[] = {
    { "event", STRING, FOUND("\"temperature\"", "temperature") },
    { "data", OBJECT, FOUND(LEGACY_DATA, LEGACY_DATA) },
    { "/data/values", OBJECT, FOUND(LEGACY_VALUES, LEGACY_VALUES) },
    { "/data/values/temp_c", NUMBER, FOUND("26.680000", "26.680000") },
    { "/data/values/lux", NUMBER, FOUND("0", "0") },
    { "/data/tags/id", STRING, FOUND("\"230035001147343438323536\"",
                                     "230035001147343438323536") },
    { "ttl", NUMBER, FOUND("60", "60") },
    { "public", FALSE, FOUND("false", "false") },
    { "measurement", STRING, FOUND("\"mydata\"", "mydata") },
    { "/data/values/none", STRING, NOT_THERE },
    { "/data/none/temp_c", STRING, NOT_THERE },
    { "/event/demo", STRING, NOT_THERE },
    { "/ttl/0", STRING, NOT_THERE },
    { "body", OBJECT, FOUND(LEGACY, LEGACY) },
    { NULL, 0, NOT_THERE }
};


#define STREAM                                                                \
    "{\"name\":\"temp\",\"data\":\"25\",\"ttl\":\"60\","                      \
    "\"published_at\":\"2014-05-28T19:20:51.638Z\","                          \
    "\"coreid\":\"0123456789abcdef\"}"

static value_case_t  particle_stream[] = {
    { "/name", STRING, FOUND("\"temp\"", "temp") },
    { "data", STRING, FOUND("\"25\"", "25") },
    { "event", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


#define NUMBERS                                                               \
    "{\"a\":0.1,\"b\":1e2,\"c\":18446744073709551616,\"d\":-0,"               \
    "\"e\":1.10,\"f\":1E+2,\"g\":9007199254740993 ,\"h\":-1.5e-9\t}"

static value_case_t  numbers[] = {
    { "a", NUMBER, FOUND("0.1", "0.1") },
    { "b", NUMBER, FOUND("1e2", "1e2") },
    { "c", NUMBER, FOUND("18446744073709551616", "18446744073709551616") },
    { "d", NUMBER, FOUND("-0", "-0") },
    { "e", NUMBER, FOUND("1.10", "1.10") },
    { "f", NUMBER, FOUND("1E+2", "1E+2") },
    { "g", NUMBER, FOUND("9007199254740993", "9007199254740993") },
    { "h", NUMBER, FOUND("-1.5e-9", "-1.5e-9") },
    { NULL, 0, NOT_THERE }
};


#define NAMES                                                                 \
    " { \"\\u0061\" : 1 , \"b\\/c\":2,\"\\ud83d\\ude00\":3,\"\\\"\":4,"       \
    "\"\":5,\"m~n\":6,\"A\":7,\"\xc3\xa9\":8,\"\\u20aC\":9,\"0\":10,"         \
    "\"aa\\\\\":11,\"x\\t\":null,\"y}\":{\"z\\\"]\":[\"}\",{}]},"             \
    "\"-\":12,\"01\":13} "

static value_case_t  names[] = {
    { "a", NUMBER, FOUND("1", "1") },
    { "/a", NUMBER, FOUND("1", "1") },
    { "\\u0061", STRING, NOT_THERE },
    { "/b~1c", NUMBER, FOUND("2", "2") },
    { "/\xf0\x9f\x98\x80", NUMBER, FOUND("3", "3") },
    { "\xf0\x9f\x98\x80", NUMBER, FOUND("3", "3") },
    { "\xf0\x9f\x98\x81", STRING, NOT_THERE },
    { "\"", NUMBER, FOUND("4", "4") },
    { "/", NUMBER, FOUND("5", "5") },
    { "/m~0n", NUMBER, FOUND("6", "6") },
    { "m~n", NUMBER, FOUND("6", "6") },
    { "A", NUMBER, FOUND("7", "7") },
    { "\xc3\xa9", NUMBER, FOUND("8", "8") },
    { "\xe2\x82\xac", NUMBER, FOUND("9", "9") },
    { "/0", NUMBER, FOUND("10", "10") },
    { "aa\\", NUMBER, FOUND("11", "11") },
    { "aa", STRING, NOT_THERE },
    { "aa\\\\", STRING, NOT_THERE },
    { "x\t", NULL_, FOUND("null", "null") },
    { "/y}/z\"]/0", STRING, FOUND("\"}\"", "}") },
    { "/y}/z\"]/1", OBJECT, FOUND("{}", "{}") },
    { "/-", NUMBER, FOUND("12", "12") },
    { "/01", NUMBER, FOUND("13", "13") },
    { NULL, 0, NOT_THERE }
};


#define ELEMENTS                                                              \
    "\t[ 0 , [true,false , null],\"a,]\\\\\",{\"0\":\"z\"},[],{},"            \
    "[[[\"deep\"]]],7,8,9,\"ten\" ]\n"

static value_case_t  elements[] = {
    { "/0", NUMBER, FOUND("0", "0") },
    { "/1", ARRAY, FOUND("[true,false , null]", "[true,false , null]") },
    { "/1/0", TRUE, FOUND("true", "true") },
    { "/1/1", FALSE, FOUND("false", "false") },
    { "/1/2", NULL_, FOUND("null", "null") },
    { "/1/3", STRING, NOT_THERE },
    { "/2", STRING, FOUND("\"a,]\\\\\"", "a,]\\") },
    { "/3/0", STRING, FOUND("\"z\"", "z") },
    { "/4", ARRAY, FOUND("[]", "[]") },
    { "/4/0", STRING, NOT_THERE },
    { "/5", OBJECT, FOUND("{}", "{}") },
    { "/5/0", STRING, NOT_THERE },
    { "/6/0/0/0", STRING, FOUND("\"deep\"", "deep") },
    { "/10", STRING, FOUND("\"ten\"", "ten") },
    { "/11", STRING, NOT_THERE },
    { "/-", STRING, NOT_THERE },
    { "/00", STRING, NOT_THERE },
    { "/01", STRING, NOT_THERE },
    { "/+1", STRING, NOT_THERE },
    { "/-1", STRING, NOT_THERE },
    { "/1e0", STRING, NOT_THERE },
    { "/", STRING, NOT_THERE },
    { "/18446744073709551616", STRING, NOT_THERE },
    { "/99999999999999999999999999", STRING, NOT_THERE },
    { "0", STRING, NOT_THERE },
    { "json:", ARRAY, FOUND("[ 0 , [true,false , null],\"a,]\\\\\","
                            "{\"0\":\"z\"},[],{},[[[\"deep\"]]],7,8,9,"
                            "\"ten\" ]",
                            "[ 0 , [true,false , null],\"a,]\\\\\","
                            "{\"0\":\"z\"},[],{},[[[\"deep\"]]],7,8,9,"
                            "\"ten\" ]") },
    { "body", ARRAY, FOUND(ELEMENTS, ELEMENTS) },
    { NULL, 0, NOT_THERE }
};


#define STRINGS                                                               \
    "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"b\":\"\\u0041\\u00e9\\u20AC\","  \
    "\"c\":\"x\\ud83D\\uDE00y\",\"d\":\"\\u001f\\u007f\",\"e\":\"\\\\\","     \
    "\"f\":\"\\\\\\\"\",\"g\":\"\xc3\xa9\",\"h\":\"\\u07ff\\u0800\\uffff\","  \
    "\"i\":\"\\\\u0041\",\"j\":\" \","                                  \
    "\"k\":\"\\ud800\\udc00\\udbff\\udfff\",\"l\":\"\\u007f\\u0080\"}"

static value_case_t  strings[] = {
    { "a", STRING, FOUND("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                         "\"\\/\b\f\n\r\t") },
    { "b", STRING, FOUND("\"\\u0041\\u00e9\\u20AC\"",
                         "A\xc3\xa9\xe2\x82\xac") },
    { "c", STRING, FOUND("\"x\\ud83D\\uDE00y\"", "x\xf0\x9f\x98\x80y") },
    { "d", STRING, FOUND("\"\\u001f\\u007f\"", "\x1f\x7f") },
    { "e", STRING, FOUND("\"\\\\\"", "\\") },
    { "f", STRING, FOUND("\"\\\\\\\"\"", "\\\"") },
    { "g", STRING, FOUND("\"\xc3\xa9\"", "\xc3\xa9") },
    { "h", STRING, FOUND("\"\\u07ff\\u0800\\uffff\"",
                         "\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf") },
    { "i", STRING, FOUND("\"\\\\u0041\"", "\\u0041") },
    { "j", STRING, FOUND("\" \"", " ") },
    { "k", STRING, FOUND("\"\\ud800\\udc00\\udbff\\udfff\"",
                         "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf") },
    { "l", STRING, FOUND("\"\\u007f\\u0080\"", "\x7f\xc2\x80") },
    { NULL, 0, NOT_THERE }
};


#define PAIRS                                                                 \
    "&Body=Hi%20there%21+%2B&a%20b=1&c+d=2&e=f=g&h&i=&=empty&&"               \
    "%C3%A9=%e2%82%ac&j=%26%3d%25&A=up&\xc3\xa8=raw&k%00"

static value_case_t  pairs[] = {
    { "Body", STRING, FOUND("Hi%20there%21+%2B", "Hi there! +") },
    { "a b", STRING, FOUND("1", "1") },
    { "c d", STRING, FOUND("2", "2") },
    { "a%20b", STRING, NOT_THERE },
    { "c+d", STRING, NOT_THERE },
    { "e", STRING, FOUND("f=g", "f=g") },
    { "h", STRING, FOUND("", "") },
    { "i", STRING, FOUND("", "") },
    { "\xc3\xa9", STRING, FOUND("%e2%82%ac", "\xe2\x82\xac") },
    { "\xc3\xa8", STRING, FOUND("raw", "raw") },
    { "j", STRING, FOUND("%26%3d%25", "&=%") },
    { "a", STRING, NOT_THERE },
    { "A", STRING, FOUND("up", "up") },
    { "k", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


#define BAD_PAIRS                                                             \
    "a=%&b=%zz&c=%00&d=%ff&e=1&e=2&%66=1&f=2&%=x&g=%4&%67h=ok&%zg=x&i=%c3%28"

static value_case_t  bad_pairs[] = {
    { "a", STRING, BROKEN("bad percent escape") },
    { "query:b", STRING, BROKEN("bad percent escape") },
    { "c", STRING, BROKEN("NUL character") },
    { "d", STRING, BROKEN("bad UTF-8") },
    { "e", STRING, BROKEN("two pairs of one name in the query string") },
    { "f", STRING, BROKEN("two pairs of one name in the query string") },
    { "g", STRING, BROKEN("bad percent escape") },
    { "gh", STRING, FOUND("ok", "ok") },
    { "i", STRING, BROKEN("bad UTF-8") },
    { "%", STRING, NOT_THERE },
    { "%zg", STRING, NOT_THERE },
    { "zg", STRING, NOT_THERE },
    { "form:a", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


/* what is wrong there does not matter to a form with the same names */

static value_case_t  bad_query[] = {
    { "a", STRING, FOUND("form", "form") },
    { "c", STRING, FOUND("%41", "A") },
    { "query:a", STRING, BROKEN("bad percent escape") },
    { "query:c", STRING, BROKEN("NUL character") },
    { "b", STRING, BROKEN("bad percent escape") },
    { NULL, 0, NOT_THERE }
};


/*
 * The order of a NAME: body first, and the query string only without it; a
 * null is as good as nothing, and better if there is nothing.
 */

static value_case_t  order[] = {
    { "a", STRING, FOUND("%41", "A") },
    { "n", NULL_, FOUND("null", "null") },
    { "b", STRING, FOUND("query", "query") },
    { "query:a", STRING, FOUND("%41", "A") },
    { "/b", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


static value_case_t  order_form[] = {
    { "a", STRING, FOUND("form", "form") },
    { "b", STRING, FOUND("query", "query") },
    { "query:a", STRING, FOUND("%41", "A") },
    { NULL, 0, NOT_THERE }
};


static value_case_t  raw_body[] = {
    { "body", STRING, FOUND("{\xff\0", "{\xff\0") },
    { "a", STRING, FOUND("1", "1") },
    { "form:a", STRING, NOT_THERE },
    { "/a", STRING, NOT_THERE },
    { "json:", STRING, NOT_THERE },
    { NULL, 0, NOT_THERE }
};


static embed_case_t  embeds[] = {
    { S("1"), S("1") },
    { S(" 1.10\n"), S("1.10") },
    { S("\"a\""), S("\"a\"") },
    { S("\t\"a \" "), S("\"a \"") },
    { S("null"), S("null") },
    { S(" true"), S("true") },
    { S("{\"a\": [1, 2]} "), S("{\"a\": [1, 2]}") },
    { S("[]"), S("[]") },
    { S("18446744073709551616"), S("18446744073709551616") },
    { S(""), ngx_null_string },
    { S(" "), ngx_null_string },
    { S("a"), ngx_null_string },
    { S("nan"), ngx_null_string },
    { S("1 2"), ngx_null_string },
    { S("1,2"), ngx_null_string },
    { S("1e999"), ngx_null_string },
    { S("1\0"), ngx_null_string },
    { S("{\"a\":1,\"a\":2}"), ngx_null_string },
    { S("\"\\u0000\""), ngx_null_string },
    { S("\"\xff\""), ngx_null_string },
    { S("1\xff"), ngx_null_string },
    { S("\"a"), ngx_null_string },
    { S("]"), ngx_null_string },
    { S("\xef\xbb\xbf""1"), ngx_null_string }
};


static void
fresh_pool(void)
{
    static ngx_log_t  log;

    if (pool) {
        ngx_destroy_pool(pool);
    }

    pool = ngx_create_pool(4096, &log);
    if (pool == NULL) {
        exit(2);
    }
}


/* in memory of its own and exact size, so that overruns are seen */

static ngx_str_t
copy(ngx_str_t *text)
{
    ngx_str_t  s;

    s.len = text->len;
    s.data = ngx_pnalloc(pool, text->len);
    if (s.data == NULL) {
        exit(2);
    }

    ngx_memcpy(s.data, text->data, text->len);

    return s;
}


static ngx_uint_t
same(ngx_str_t *got, ngx_str_t *want)
{
    return got->len == want->len
           && (got->len == 0
               || ngx_memcmp(got->data, want->data, got->len) == 0);
}


static ngx_uint_t
inside(ngx_str_t *part, ngx_str_t *whole)
{
    return part->data >= whole->data
           && part->data + part->len <= whole->data + whole->len;
}


static ngx_int_t
parse(ngx_http_iothub_webhook_t *wh, ngx_http_iothub_format_e format,
    ngx_str_t *body, ngx_str_t *args)
{
    ngx_str_t  b, a;

    b = copy(body);

    if (args) {
        a = copy(args);
        args = &a;
    }

    return ngx_http_iothub_webhook_parse(pool, wh, format, &b, args);
}


static ngx_int_t
find(ngx_http_iothub_webhook_t *wh, const char *text,
    ngx_http_iothub_value_t *value)
{
    ngx_str_t                   s;
    const char                 *reason;
    ngx_http_iothub_locator_t   locator;

    s.len = ngx_strlen(text);
    s.data = (u_char *) text;

    if (ngx_http_iothub_locator_read(pool, &s, &locator, &reason)
        != NGX_OK)
    {
        note("bad locator %s", text);
        exit(2);
    }

    return ngx_http_iothub_webhook_find(wh, &locator, value);
}


static void
test_formats(void)
{
    ngx_int_t                  rc;
    ngx_str_t                  type;
    ngx_uint_t                 i;
    format_case_t             *c;
    ngx_http_iothub_format_e   format;

    for (i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        c = &formats[i];

        if (c->type) {
            type.len = ngx_strlen(c->type);
            type.data = (u_char *) c->type;
            type = copy(&type);
        }

        format = RAW;
        rc = ngx_http_iothub_format_of(c->type ? &type : NULL, &c->body,
                                       &format);

        ok(rc == c->rc && (rc != NGX_OK || format == c->format),
           "format %d of <%s>", (int) i, c->type ? c->type : "no type");
    }
}


static void
test_bodies(ngx_http_iothub_format_e format, body_case_t *c, ngx_uint_t n)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_http_iothub_webhook_t  wh;

    for (i = 0; i < n; i++, c++) {
        rc = parse(&wh, format, &c->body, NULL);

        if (c->reason == NULL) {
            is(rc, NGX_OK, "%s body %d is fine",
               format == JSON ? "JSON" : "form", (int) i);
            continue;
        }

        if (!ok(rc == NGX_DECLINED && wh.reason
                && ngx_strcmp(wh.reason, c->reason) == 0,
                "%s body %d: %s", format == JSON ? "JSON" : "form", (int) i,
                c->reason))
        {
            note("got %d, %s", (int) rc, wh.reason ? wh.reason : "-");
        }
    }
}


static void
test_locators(void)
{
    u_char                     *p, buf[256];
    ngx_int_t                   rc;
    ngx_str_t                   text;
    ngx_uint_t                  i, n;
    const char                 *reason;
    locator_case_t             *c;
    ngx_http_iothub_locator_t   l;

    for (i = 0; i < sizeof(locators) / sizeof(locators[0]); i++) {
        c = &locators[i];

        text.len = ngx_strlen(c->text);
        text.data = (u_char *) c->text;
        text = copy(&text);

        reason = NULL;
        rc = ngx_http_iothub_locator_read(pool, &text, &l, &reason);

        if (c->kind == -1) {
            ok(rc == NGX_DECLINED && reason && strstr(reason, c->reason),
               "locator <%s> is refused: %s", c->text, c->reason);
            continue;
        }

        p = buf;

        for (n = 0; rc == NGX_OK && n < l.nsteps; n++) {
            p = ngx_sprintf(p, n ? "|%V" : "%V", &l.steps[n].name);
        }

        *p = '\0';

        if (rc == NGX_OK && l.name.len) {
            *ngx_sprintf(buf, "%V", &l.name) = '\0';
        }

        ok(rc == NGX_OK && l.kind == (ngx_http_iothub_locator_e) c->kind
           && (c->name ? ngx_strcmp(buf, c->name) == 0 : l.nsteps == 0),
           "locator <%s>", c->text);
    }
}


static void
test_values(const char *title, ngx_http_iothub_format_e format,
    ngx_str_t body, ngx_str_t args, value_case_t *c)
{
    ngx_int_t                  rc, want;
    ngx_http_iothub_value_t    value;
    ngx_http_iothub_webhook_t  wh;

    is(parse(&wh, format, &body, &args), NGX_OK, "%s: parsed", title);

    for ( /* void */ ; c->locator; c++) {

        want = c->raw.data ? NGX_OK : c->text.data ? NGX_ABORT : NGX_DECLINED;

        rc = find(&wh, c->locator, &value);

        if (!is(rc, want, "%s: <%s> is %sfound", title, c->locator,
                want == NGX_OK ? "" : "not ")
            || (rc == NGX_DECLINED))
        {
            continue;
        }

        if (rc == NGX_ABORT) {
            is_str(&c->text, wh.reason, "%s: why not", title);
            continue;
        }

        ok(value.type == c->type && same(&value.raw, &c->raw)
           && same(&value.text, &c->text) && !value.escaped
           && value.json == (format == JSON && inside(&value.raw, &wh.body))
           && (inside(&value.raw, &wh.body) || inside(&value.raw, &wh.args)),
           "%s: value of <%s>", title, c->locator);
    }
}


static void
test_all_values(void)
{
    ngx_str_t  none = ngx_string("");
    ngx_str_t  particle = ngx_string(PARTICLE);
    ngx_str_t  empty_object = ngx_string("{}");
    ngx_str_t  a_null = ngx_string("{\"a\":null,\"n\":null}");
    ngx_str_t  form = ngx_string("a=form&c=%41");
    ngx_str_t  query = ngx_string("a=%41&b=query&c=d");
    ngx_str_t  raw = ngx_string("{\xff\0");
    ngx_str_t  bad = ngx_string(BAD_PAIRS);

#define JSON_VALUES(title, text, cases)                                       \
    test_values(title, JSON, (ngx_str_t) ngx_string(text), none, cases)

    is(particle.len, 96, "length of the documented body");

    test_values("Particle's form", FORM, particle, none, particle_pairs);
    test_values("Particle's form", FORM, particle, none, particle_form);
    test_values("Particle's query", NO_BODY, none, particle, particle_pairs);
    test_values("Particle's query", NO_BODY, none, particle, particle_query);
    test_values("POST with query", JSON, empty_object, particle,
                particle_pairs);

    JSON_VALUES("Particle's JSON", PARTICLE_JSON, particle_json);
    JSON_VALUES("custom JSON", PARTICLE_CUSTOM, particle_custom);
    JSON_VALUES("legacy JSON", LEGACY, particle_legacy);
    JSON_VALUES("event stream", STREAM, particle_stream);
    JSON_VALUES("numbers", NUMBERS, numbers);
    JSON_VALUES("names", NAMES, names);
    JSON_VALUES("elements", ELEMENTS, elements);
    JSON_VALUES("strings", STRINGS, strings);

    /* all but the last, which is broken and matters in a form only */

    test_values("form pairs", FORM,
                (ngx_str_t) { sizeof(PAIRS) - 1 - 5, (u_char *) PAIRS }, none,
                pairs);
    test_values("query pairs", NO_BODY, none, (ngx_str_t) ngx_string(PAIRS),
                pairs);
    test_values("bad query", NO_BODY, none, bad, bad_pairs);
    test_values("form with bad query", FORM, form, bad, bad_query);

    test_values("JSON, then query", JSON, a_null, query, order);
    test_values("form, then query", FORM, form, query, order_form);
    test_values("raw body", RAW, raw, (ngx_str_t) ngx_string("a=1"),
                raw_body);
}


/* a text without escapes is a slice, one with is decoded when asked for */

static void
test_memory(void)
{
    ngx_int_t                   rc;
    ngx_str_t                   body = ngx_string("{\"a\":\"plain\","
                                                  "\"b\":\"\\n\"}");
    ngx_str_t                   form = ngx_string("a=plain&b=%20");
    ngx_str_t                   text = ngx_string("/b");
    const char                 *reason;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_locator_t   locator;
    ngx_http_iothub_webhook_t   wh;

    parse(&wh, JSON, &body, NULL);

    find(&wh, "/a", &value);
    ok(inside(&value.text, &wh.body), "a plain string is a slice");

    find(&wh, "/b", &value);
    ok(!inside(&value.text, &wh.body), "an escaped one is not");

    ngx_http_iothub_locator_read(pool, &text, &locator, &reason);

    rc = ngx_http_iothub_webhook_find_raw(&wh, &locator, &value);
    ok(rc == NGX_OK && value.escaped && value.text.len == 0
       && value.raw.len == 4, "raw alone decodes nothing");

    rc = ngx_http_iothub_webhook_text(pool, &value);
    ok(rc == NGX_OK && !value.escaped, "decoded when asked for");
    is_str(&value.text, "\n", "its text");

    rc = ngx_http_iothub_webhook_text(pool, &value);
    is(rc, NGX_OK, "asked twice");
    is_str(&value.text, "\n", "its text again");

    parse(&wh, FORM, &form, NULL);

    find(&wh, "a", &value);
    ok(inside(&value.text, &wh.body), "a plain pair is a slice");

    find(&wh, "b", &value);
    ok(!inside(&value.text, &wh.body), "an escaped one is not");
}


static void
test_embed(void)
{
    ngx_int_t      rc;
    ngx_str_t      text, json;
    ngx_uint_t     i;
    embed_case_t  *c;

    for (i = 0; i < sizeof(embeds) / sizeof(embeds[0]); i++) {
        c = &embeds[i];

        text = copy(&c->text);
        rc = ngx_http_iothub_webhook_embed(&text, &json);

        ok(c->json.data ? rc == NGX_OK && same(&json, &c->json)
                          && inside(&json, &text)
                        : rc == NGX_DECLINED,
           "embed %d %s", (int) i, c->json.data ? "is JSON" : "is not JSON");
    }
}


static void
test_escape(void)
{
    u_char        buf[256 * 6 + 2];
    size_t        size;
    json_t       *json;
    ngx_str_t     src, got, dst;
    ngx_uint_t    i;
    u_char        all[256];

    src.data = (u_char *) "a\"\\/\b\f\n\r\t\x01\x1f\x7f\xe2\x80\xa8";
    src.len = ngx_strlen(src.data);

    size = ngx_http_iothub_json_escape(NULL, &src);
    dst.data = ngx_pnalloc(pool, size);
    dst.len = ngx_http_iothub_json_escape(dst.data, &src);

    is(size, dst.len, "escaped size");
    is_str(&dst, "a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001F\x7f\xe2\x80\xa8",
           "escaped text");

    src.len = 0;
    is(ngx_http_iothub_json_escape(NULL, &src), 0, "size of an empty text");

    for (i = 1; i < 128; i++) {
        all[i - 1] = (u_char) i;
    }

    src.data = all;
    src.len = 127;

    buf[0] = '"';
    size = ngx_http_iothub_json_escape(buf + 1, &src);
    buf[size + 1] = '"';

    json = json_loadb((char *) buf, size + 2, JSON_DECODE_ANY, NULL);

    got.data = (u_char *) json_string_value(json);
    got.len = json_string_length(json);

    ok(same(&got, &src), "all of ASCII comes back");

    json_decref(json);
}


static ngx_str_t
repeat(const char *head, const char *part, ngx_uint_t n, const char *tail)
{
    u_char     *p;
    ngx_str_t   s;

    s.len = ngx_strlen(head) + n * ngx_strlen(part) + ngx_strlen(tail);
    s.data = ngx_pnalloc(pool, s.len);
    if (s.data == NULL) {
        exit(2);
    }

    p = ngx_cpymem(s.data, head, ngx_strlen(head));

    while (n--) {
        p = ngx_cpymem(p, part, ngx_strlen(part));
    }

    ngx_memcpy(p, tail, ngx_strlen(tail));

    return s;
}


static void
test_depth(void)
{
    u_char                     *p;
    ngx_str_t                   body, args;
    ngx_uint_t                  i;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_webhook_t   wh;

    ngx_str_null(&args);

    body = repeat("", "[", 2048, "");
    body.data = ngx_pnalloc(pool, 4098);
    ngx_memset(body.data, '[', 2049);
    ngx_memset(body.data + 2049, ']', 2049);

    body.len = 4098;
    is(ngx_http_iothub_webhook_parse(pool, &wh, JSON, &body, &args),
       NGX_DECLINED, "2049 levels");
    ok(ngx_strcmp(wh.reason, "nested too deeply") == 0, "nested too deeply");

    body.data++;
    body.len -= 2;
    is(ngx_http_iothub_webhook_parse(pool, &wh, JSON, &body, &args), NGX_OK,
       "2048 levels");

    p = ngx_pnalloc(pool, 2047 * 2 + 1);
    for (i = 0; i < 2047; i++) {
        p[i * 2] = '/';
        p[i * 2 + 1] = '0';
    }
    p[2047 * 2] = '\0';

    ok(find(&wh, (char *) p, &value) == NGX_OK && value.raw.len == 2
       && value.type == ARRAY, "the innermost of them");

    body = repeat("[", "{\"a\":[", 100000, "");
    is(ngx_http_iothub_webhook_parse(pool, &wh, JSON, &body, &args),
       NGX_DECLINED, "a nesting bomb");

    body = repeat("[", "9", 400, "]");
    is(ngx_http_iothub_webhook_parse(pool, &wh, JSON, &body, &args),
       NGX_DECLINED, "an integer of 400 digits");
    ok(ngx_strcmp(wh.reason, "number out of range") == 0, "out of range");

    body = repeat("[", "9", 300, "]");
    is(ngx_http_iothub_webhook_parse(pool, &wh, JSON, &body, &args), NGX_OK,
       "an integer of 300 digits");
}


/*
 * What would take minutes in quadratic time.  The limit is CPU time and far
 * above what is needed, even on a slow machine with sanitizers.
 */

static void
timed(const char *title, ngx_http_iothub_format_e format, ngx_str_t body,
    ngx_str_t args, const char *locator, ngx_int_t want, ngx_int_t want_find)
{
    double                      seconds;
    clock_t                     start;
    ngx_int_t                   rc;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_webhook_t   wh;

    start = clock();

    rc = ngx_http_iothub_webhook_parse(pool, &wh, format, &body, &args);
    is(rc, want, "%s", title);

    if (rc == NGX_OK) {
        is(find(&wh, locator, &value), want_find, "%s: %s", title, locator);
    }

    seconds = (double) (clock() - start) / CLOCKS_PER_SEC;
    ok(seconds < 3, "%s in time", title);

    fresh_pool();
}


static ngx_str_t
many_pairs(ngx_uint_t n, size_t len, ngx_uint_t last)
{
    u_char      *p;
    ngx_str_t    s;
    ngx_uint_t   i;

    s.data = ngx_pnalloc(pool, n * (len + 7));
    p = s.data;

    for (i = 0; i < n; i++) {
        ngx_memset(p, 'a', len);
        p = ngx_sprintf(p + len, "%05ui=&", i == n - 1 ? last : i);
    }

    s.len = p - s.data;

    return s;
}


static ngx_str_t
many_members(ngx_uint_t n)
{
    u_char      *p;
    ngx_str_t    s;
    ngx_uint_t   i;

    s.data = ngx_pnalloc(pool, n * 20 + 3);
    p = ngx_cpymem(s.data, "{", 1);

    for (i = 0; i < n; i++) {
        p = ngx_sprintf(p, "%s\"\\u00%02xi%06ui\":0", i ? "," : "",
                        0x61 + i % 26, i);
    }

    *p++ = '}';
    s.len = p - s.data;

    return s;
}


static void
test_hostile(void)
{
    ngx_str_t  none;

    ngx_str_null(&none);

    timed("a million backslashes", JSON,
          repeat("{\"a\":\"", "\\\\", 1000000, "\"}"), none, "a", NGX_OK,
          NGX_OK);
    timed("half a million escaped quotes", JSON,
          repeat("{\"a\":{\"b\":\"", "\\\"", 500000, "\"}}"), none, "/a/b",
          NGX_OK, NGX_OK);
    timed("a backslash without end", JSON,
          repeat("{\"a\":\"", "\\\\", 500000, "\\\"}"), none, "a",
          NGX_DECLINED, 0);
    timed("half a million escapes", JSON,
          repeat("{\"", "\\u0061", 300000, "\":1}"), none, "/a", NGX_OK,
          NGX_DECLINED);
    timed("300000 elements", JSON, repeat("[", "[],", 300000, "7]"), none,
          "/300000", NGX_OK, NGX_OK);
    timed("100000 members", JSON, many_members(100000), none, "z099999",
          NGX_OK, NGX_DECLINED);
    timed("as many as there may be pairs of 1 KB", FORM,
          many_pairs(NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS, 1024, 1), none, "x",
          NGX_DECLINED, 0);
    timed("the same with no name twice", FORM,
          many_pairs(NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS, 1024, 99999), none,
          "x", NGX_OK, NGX_DECLINED);
    timed("one pair more", FORM,
          many_pairs(NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS + 1, 1, 99999), none,
          "x", NGX_DECLINED, 0);
    timed("a million ampersands", FORM, repeat("", "&", 1000000, "x"), none,
          "x", NGX_OK, NGX_OK);
    timed("a megabyte of query string", NO_BODY, none,
          repeat("x", "&%61", 300000, "b"), "ab", NGX_OK, NGX_OK);
    timed("a megabyte of percent escapes", FORM,
          repeat("x=", "%41", 300000, ""), none, "x", NGX_OK, NGX_OK);
}


static ngx_uint_t
chance(ngx_uint_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (ngx_uint_t) ((seed >> 11) % n);
}


static void
put(generator_t *g, const char *text)
{
    size_t  len;

    len = ngx_strlen(text);

    if ((size_t) (g->last - g->p) >= len) {
        g->p = ngx_cpymem(g->p, text, len);
    }
}


static void
put_space(generator_t *g)
{
    static const char  *space[] = { "", "", "", " ", "\n", "\t", "\r\n  " };

    put(g, space[chance(7)]);
}


static void
put_string(generator_t *g, ngx_uint_t name)
{
    char         number[16];
    ngx_uint_t   n;

    static const char  *part[] = {
        "a", "b", "/", "~", "~1", ":", ",", "{", "}", "[", "]", "\\\"",
        "\\\\", "\\/", "\\n", "\\u0061", "\\u00e9", "\xc3\xa9", "\\u20ac",
        "\\ud83d\\ude00", "\xf0\x9f\x98\x80", " ", "0", "-", "\x7f", "\\t",
        "\\u001f", "text"
    };

    put(g, "\"");

    for (n = chance(5); n; n--) {
        put(g, part[chance(sizeof(part) / sizeof(part[0]))]);
    }

    if (name && chance(8)) {
        (void) snprintf(number, sizeof(number), "%d", (int) g->names++);
        put(g, number);
    }

    put(g, "\"");
}


static void
put_value(generator_t *g, ngx_uint_t depth)
{
    ngx_uint_t  n, kind;

    static const char  *scalar[] = {
        "0", "-0", "0.1", "1e2", "18446744073709551616", "1.10", "-1.5E-9",
        "true", "false", "null", "123"
    };

    kind = depth == 0 ? chance(2) : chance(depth > 6 ? 2 : 5);

    if (kind == 0 && depth) {
        put(g, scalar[chance(sizeof(scalar) / sizeof(scalar[0]))]);
        return;
    }

    if (kind == 1 && depth) {
        put_string(g, 0);
        return;
    }

    kind &= 1;
    put(g, kind ? "[" : "{");

    for (n = chance(6); n; n--) {
        put_space(g);

        if (kind == 0) {
            put_string(g, 1);
            put_space(g);
            put(g, ":");
            put_space(g);
        }

        put_value(g, depth + 1);
        put_space(g);

        if (n > 1) {
            put(g, ",");
        }
    }

    put_space(g);
    put(g, kind ? "]" : "}");
}


/* is what the pointer finds the same as jansson's own value? */

static ngx_uint_t
check_value(ngx_http_iothub_webhook_t *wh, const char *pointer, json_t *tree)
{
    json_t                   *alone;
    ngx_str_t                 text;
    ngx_uint_t                equal;
    ngx_http_iothub_value_t   value;

    static ngx_http_iothub_type_e  types[] = {
        OBJECT, ARRAY, STRING, NUMBER, NUMBER, TRUE, FALSE, NULL_
    };

    if (find(wh, pointer, &value) != NGX_OK
        || value.type != types[json_typeof(tree)]
        || !value.json
        || !inside(&value.raw, &wh->body))
    {
        return 0;
    }

    if (json_is_string(tree)) {
        text.data = (u_char *) json_string_value(tree);
        text.len = json_string_length(tree);

        if (!same(&value.text, &text)) {
            return 0;
        }

    } else if (!same(&value.text, &value.raw)) {
        return 0;
    }

    alone = json_loadb((char *) value.raw.data, value.raw.len,
                       JSON_FLAGS|JSON_DECODE_ANY, NULL);

    equal = alone && json_equal(alone, tree);

    json_decref(alone);

    return equal;
}


static ngx_uint_t
check_tree(ngx_http_iothub_webhook_t *wh, u_char *start, u_char *end,
    json_t *tree, ngx_uint_t *values)
{
    void        *iter;
    u_char      *p;
    size_t       i;
    const char  *name;

    *end = '\0';
    (*values)++;

    if (!check_value(wh, (char *) start, tree)) {
        note("differs at %s", start);
        return 0;
    }

    for (i = 0; i < json_array_size(tree); i++) {
        p = ngx_sprintf(end, "/%uz", i);

        if (!check_tree(wh, start, p, json_array_get(tree, i), values)) {
            return 0;
        }
    }

    for (iter = json_object_iter(tree);
         iter;
         iter = json_object_iter_next(tree, iter))
    {
        p = end;
        *p++ = '/';

        for (name = json_object_iter_key(iter); *name; name++) {
            switch (*name) {

            case '~':
                p = ngx_cpymem(p, "~0", 2);
                break;

            case '/':
                p = ngx_cpymem(p, "~1", 2);
                break;

            default:
                *p++ = *name;
            }
        }

        if (!check_tree(wh, start, p, json_object_iter_value(iter), values)) {
            return 0;
        }
    }

    return 1;
}


static void
test_random(ngx_uint_t documents)
{
    u_char                     *buf, pointer[4096];
    json_t                     *tree;
    ngx_str_t                   body;
    ngx_int_t                   rc;
    ngx_uint_t                  i, agree, accepted, values;
    generator_t                 g;
    ngx_http_iothub_webhook_t   wh;

    seed = 88172645463325252ULL;
    agree = 0;
    accepted = 0;
    values = 0;

    buf = malloc(65536);
    if (buf == NULL) {
        exit(2);
    }

    for (i = 0; i < documents; i++) {
        fresh_pool();

        g.p = buf;
        g.last = buf + 65536;
        g.names = 0;

        put_space(&g);
        put_value(&g, 0);
        put_space(&g);

        body.data = buf;
        body.len = g.p - buf;

        if (chance(10) == 0) {
            buf[chance(body.len)] = (u_char) chance(256);
        }

        tree = memchr(buf, '\0', body.len)
               ? NULL
               : json_loadb((char *) buf, body.len, JSON_FLAGS, NULL);

        rc = parse(&wh, JSON, &body, NULL);

        ngx_memcpy(pointer, "json:", 5);

        if (tree == NULL) {
            agree += rc == NGX_DECLINED;

        } else if (rc == NGX_OK
                   && check_tree(&wh, pointer, pointer + 5, tree, &values))
        {
            agree++;
            accepted++;
        }

        json_decref(tree);
    }

    free(buf);

    is(agree, documents, "random documents");
    ok(accepted > documents / 2 && values > documents * 5,
       "enough of them are good ones");
    note("%d good documents with %d values", (int) accepted, (int) values);
}


static void
test_elements(void)
{
    ngx_str_t                    body = S("{\"n\":1,\"a\":[ {\"n\":2.0},7,"
                                          " [3,{\"n\":4}] ,\"x\\ny\",{} ]}");
    ngx_str_t                    array = S("/a"), n = S("/n");
    ngx_str_t                    root = S("json:");
    ngx_str_t                    second = S("/1/n"), whole = S("body");
    ngx_str_t                    name = S("n");
    const char                  *reason;
    ngx_http_iothub_value_t      value;
    ngx_http_iothub_webhook_t    wh, element;
    ngx_http_iothub_locator_t    a, l, r, s, b, m;
    ngx_http_iothub_elements_t   elements;

    (void) ngx_http_iothub_locator_read(pool, &array, &a, &reason);
    (void) ngx_http_iothub_locator_read(pool, &n, &l, &reason);
    (void) ngx_http_iothub_locator_read(pool, &root, &r, &reason);
    (void) ngx_http_iothub_locator_read(pool, &second, &s, &reason);
    (void) ngx_http_iothub_locator_read(pool, &whole, &b, &reason);
    (void) ngx_http_iothub_locator_read(pool, &name, &m, &reason);

    is(ngx_http_iothub_webhook_parse(pool, &wh, JSON, &body, NULL), NGX_OK,
       "a document with an array");
    is(ngx_http_iothub_webhook_first(&wh, &l, &elements), NGX_DECLINED,
       "a number has no elements");
    is(ngx_http_iothub_webhook_first(&wh, &s, &elements), NGX_DECLINED,
       "nor has what is not there");
    is(ngx_http_iothub_webhook_first(&wh, &a, &elements), NGX_OK,
       "the array has");

    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_OK, "first");
    is(ngx_http_iothub_webhook_find(&element, &l, &value), NGX_OK,
       "its member");
    is_str(&value.text, "2.0", "not that of the document");
    is(ngx_http_iothub_webhook_find(&element, &r, &value), NGX_OK, "its root");
    is_str(&value.text, "{\"n\":2.0}", "is the element");
    is(ngx_http_iothub_webhook_find(&element, &b, &value), NGX_OK, "its body");
    is(value.text.len, body.len, "is that of the whole");

    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_OK, "a number");
    is(ngx_http_iothub_webhook_find(&element, &l, &value), NGX_DECLINED,
       "has no members");
    is(ngx_http_iothub_webhook_find(&element, &m, &value), NGX_DECLINED,
       "by name neither");
    is(ngx_http_iothub_webhook_find(&element, &r, &value), NGX_OK, "its root");
    is_str(&value.text, "7", "is the number");

    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_OK, "an array");
    is(ngx_http_iothub_webhook_find(&element, &s, &value), NGX_OK,
       "has elements");
    is_str(&value.text, "4", "with members");

    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_OK, "a string");
    is(ngx_http_iothub_webhook_find(&element, &r, &value), NGX_OK, "its root");
    is_str(&value.text, "x\ny", "is decoded");

    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_OK,
       "an empty object");
    is(ngx_http_iothub_webhook_find(&element, &l, &value), NGX_DECLINED,
       "has no members");
    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_DONE, "the end");
    is(ngx_http_iothub_webhook_next(&elements, &element), NGX_DONE,
       "stays the end");
}


int
main(int argc, char *const *argv)
{
    ngx_pagesize = 4096;

    fresh_pool();

    test_formats();
    test_bodies(JSON, json_bodies,
                sizeof(json_bodies) / sizeof(json_bodies[0]));
    test_bodies(FORM, form_bodies,
                sizeof(form_bodies) / sizeof(form_bodies[0]));
    test_locators();
    test_all_values();
    test_memory();
    test_embed();
    test_escape();
    test_depth();
    test_elements();
    fresh_pool();
    test_hostile();
    test_random(1500);

    ngx_destroy_pool(pool);

    return done_testing();
}
