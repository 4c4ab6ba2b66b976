
/* Copyright (C) the ngx_http_iothub_module authors */

/* Unit test of the hub_error room. */

#include "tap.h"

#include "ngx_http_iothub_hub_error.h"


#define SEND    NGX_HTTP_IOTHUB_OPERATION_SEND
#define CREATE  NGX_HTTP_IOTHUB_OPERATION_CREATE
#define ASK     NGX_HTTP_IOTHUB_OPERATION_ASK

/* the two formats of an error's body, with a name, and with a code */

#define FORMAT_1(name)                                                        \
    "{\"Message\":\"ErrorCode:" name ";E2E\",\"ExceptionMessage\":"           \
    "\"Tracking ID:1bc3-G:20-TimeStamp:02/05/2021 10:03:38\"}"

#define FORMAT_2(code)                                                        \
    "{\"Message\":\"{\\\"errorCode\\\":" code ",\\\"message\\\":\\\"400\\\"," \
    "\\\"trackingId\\\":\\\"FC73-G2:-TimeStamp:2024-02-27T17:27:48.27\\\","   \
    "\\\"timestampUtc\\\":\\\"\\\",\\\"info\\\":null}\","                     \
    "\"ExceptionMessage\":\"\"}"

#define MISSING                                                               \
    "{\"Message\":\"ErrorCode:IotHubUnauthorized;IotHub 'contoso' does not "  \
    "contain the specified device 'dev-1'\",\"ExceptionMessage\":\"\"}"


typedef ngx_http_iothub_hub_error_t  hub_error_t;


typedef struct {
    ngx_uint_t   status;
    const char  *header;
    const char  *body;
    ngx_uint_t   code;
    const char  *name;
    ngx_uint_t   unknown_device;
} parse_case_t;


/* what send, create and ask have to make of an answer: action/result */

typedef struct {
    ngx_uint_t   status;
    const char  *code;        /* NULL: none */
    const char  *name;
    const char  *send;
    const char  *create;
    const char  *ask;
} answer_case_t;


static ngx_pool_t  *pool;


/* a copy of its own, so that a sanitizer sees a step out of it */

static ngx_str_t
bytes(const char *text, size_t len)
{
    ngx_str_t  s;

    s.len = len;
    s.data = ngx_pnalloc(pool, len + 1);
    s.data += 1;

    ngx_memcpy(s.data, text, len);

    return s;
}


static ngx_str_t
str(const char *text)
{
    return bytes(text, strlen(text));
}


static const parse_case_t  parses[] = {

    { 204, "", "", 0, "", 0 },
    { 404, "DeviceNotFound", "", 404001, "DeviceNotFound", 0 },
    { 404, "", FORMAT_1("DeviceNotFound"), 404001, "DeviceNotFound", 0 },
    { 404, "", FORMAT_2("404001"), 404001, "DeviceNotFound", 0 },
    { 404, "", FORMAT_2("\\\"404001\\\""), 404001, "DeviceNotFound", 0 },
    { 404, "", "{\"errorCode\":404001}", 404001, "DeviceNotFound", 0 },
    { 404, "", "{\"errorCode\" : \"404001\" }", 404001, "DeviceNotFound", 0 },
    { 404, "", "{\"errorCode\":\"DeviceNotFound\"}", 404001,
      "DeviceNotFound", 0 },
    { 404, "404001", "", 404001, "DeviceNotFound", 0 },
    { 404, "devicenotfound", "", 404001, "devicenotfound", 0 },
    { 400, "", "{\"Message\":\"{\\\\\\\"errorCode\\\\\\\":400030}\"}",
      400030, "ConnectionRejectedOnFaultInjection", 0 },
    { 409, "", FORMAT_1("DeviceAlreadyExists"), 409001,
      "DeviceAlreadyExists", 0 },
    { 429, "", FORMAT_1("ThrottlingBacklogTimeout"), 429003,
      "ThrottlingBacklogTimeout", 0 },
    { 500, "", FORMAT_2("500123"), 500123, "", 0 },
    { 418, "SomethingNew", FORMAT_2("418001"), 418001, "SomethingNew", 0 },

    /* the header's name, the body's code; the first of each */

    { 404, "IotHubNotFound", FORMAT_1("DeviceNotFound"), 401001,
      "IotHubNotFound", 0 },
    { 400, "ArgumentInvalid", FORMAT_2("400030"), 400030,
      "ArgumentInvalid", 0 },
    { 400, "", "ErrorCode:A;ErrorCode:B;errorCode:400004,errorCode:400005,",
      400004, "A", 0 },
    { 404, "", "{\"Message\":\"ErrorCode:ArgumentInvalid;device "
               "'ErrorCode:DeviceNotFound;'\"}", 400004, "ArgumentInvalid",
      0 },

    /* what is none */

    { 404, "", "<html><title>404 Not Found</title></html>", 0, "", 0 },
    { 404, "", "\xff\xfe\x80 {{{{\"\"\"\\", 0, "", 0 },
    { 404, "Device Not Found", "", 0, "", 0 },
    { 404, "Device\r\nNotFound", "", 0, "", 0 },
    { 404, "Device\"NotFound", "", 0, "", 0 },
    { 404, "\xc3\xa9", "", 0, "", 0 },
    { 404, "", "ErrorCode:DeviceNotFound", 0, "", 0 },
    { 404, "", "{\"errorCode\":40400", 0, "", 0 },
    { 404, "", "{\"errorCode\":404001", 0, "", 0 },
    { 404, "", "{\"errorCode\":", 0, "", 0 },
    { 404, "", "{\"errorCode\"", 0, "", 0 },
    { 404, "", "errorCod", 0, "", 0 },
    { 404, "", "errorCode DeviceNotFound;", 0, "", 0 },
    { 404, "", "errorCode::DeviceNotFound;", 0, "", 0 },
    { 404, "", "{\"errorCode\":null}", 0, "null", 0 },
    { 404, "", "{\"errorCode\":404}", 0, "", 0 },
    { 404, "", "{\"errorCode\":4040010}", 0, "", 0 },
    { 404, "", "{\"errorCode\":-404001}", 0, "", 0 },
    { 404, "", "{\"errorCode\":99999999999999999999999999}", 0, "", 0 },
    { 404, "", "{\"errorCodes\":404001}", 0, "", 0 },
    { 404, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "", 0,
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0 },
    { 404, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "", 0, "", 0 },

    /* 401: a key that is refused, or a device that is not there */

    { 401, "", FORMAT_1("IotHubUnauthorizedAccess"), 401002,
      "IotHubUnauthorizedAccess", 0 },
    { 401, "IotHubUnauthorized", MISSING, 401003, "IotHubUnauthorized", 1 },
    { 403, "IotHubUnauthorized", MISSING, 401003, "IotHubUnauthorized", 0 },
    { 401, "", "{\"Message\":\"The DEVICE dev-1 was NOT FOUND\"}", 0, "", 1 },
    { 401, "", "device 'a' does not exist", 0, "", 1 },
    { 401, "", "Device not registered", 0, "", 1 },
    { 401, "DeviceNotFound", "", 404001, "DeviceNotFound", 1 },
    { 401, "", FORMAT_2("404001"), 404001, "DeviceNotFound", 1 },
    { 401, "DeviceNotFound", FORMAT_2("401003"), 401003, "DeviceNotFound",
      1 },
    { 401, "", "Authorization rule '*' does not allow access for '*'", 0, "",
      0 },
    { 401, "", "Authentication failed for this device, renew token or "
               "certificate and reconnect", 0, "", 0 },
    { 401, "", "Authorization header missing", 0, "", 0 },
    { 401, "", "policy not found for the device", 0, "", 0 },
    { 401, "", "IotHub 'device' does not contain it", 0, "", 0 },
    { 401, "", "refused: /devices/not-contain-device", 0, "", 0 },
    { 401, "", "not contain", 0, "", 0 },
    { 401, "", "it is not found", 0, "", 0 },
    { 401, "", "it is not found, nor is it: device not found", 0, "", 1 }
};


static void
test_parse(void)
{
    ngx_str_t     header, body;
    ngx_uint_t    i;
    hub_error_t   err;

    for (i = 0; i < sizeof(parses) / sizeof(parses[0]); i++) {
        header = str(parses[i].header);
        body = str(parses[i].body);

        ngx_memset(&err, 0xff, sizeof(err));

        ngx_http_iothub_hub_error_parse(parses[i].status, &header, &body,
                                        &err);

        ok(err.code == parses[i].code
           && err.name.len == strlen(parses[i].name)
           && (err.name.len == 0
               || memcmp(err.name.data, parses[i].name, err.name.len) == 0)
           && err.unknown_device == parses[i].unknown_device,
           "answer %d: %d \"%s\"%s", (int) i, (int) parses[i].code,
           parses[i].name, parses[i].unknown_device ? ", no device" : "");
    }
}


static void
test_parse_bounds(void)
{
    size_t        i, size;
    char         *text;
    ngx_str_t     header, body, cut;
    ngx_uint_t    wrong;
    hub_error_t   err;

    static const char  tail[] = "\"errorCode\":404001}";

    ngx_str_null(&header);
    ngx_str_null(&body);
    ngx_http_iothub_hub_error_parse(404, &header, &body, &err);
    ok(err.code == 0 && err.name.len == 0, "no header and no body");

    ngx_http_iothub_hub_error_parse(401, &header, &body, &err);
    ok(!err.unknown_device, "401 without a text");

    /* how far the search goes */

    size = NGX_HTTP_IOTHUB_HUB_ERROR_SCAN_MAX;
    text = ngx_palloc(pool, size + 100);
    ngx_memset(text, ' ', size + 100);

    ngx_memcpy(text + size - strlen(tail), tail, strlen(tail));
    body = bytes(text, size + 100);
    ngx_http_iothub_hub_error_parse(404, &header, &body, &err);
    is(err.code, 404001, "an error just inside of what is searched");

    ngx_memset(text, ' ', size + 100);
    ngx_memcpy(text + size, tail, strlen(tail));
    body = bytes(text, size + 100);
    ngx_http_iothub_hub_error_parse(404, &header, &body, &err);
    is(err.code, 0, "an error beyond");

    /* the device, far from the words */

    ngx_memset(text, ' ', size);
    ngx_memcpy(text, "not contain", 11);
    ngx_memcpy(text + 11 + 250, "device", 6);
    body = bytes(text, 11 + 256);
    ngx_http_iothub_hub_error_parse(401, &header, &body, &err);
    ok(err.unknown_device, "the device is near");

    ngx_memset(text, ' ', size);
    ngx_memcpy(text, "not contain", 11);
    ngx_memcpy(text + 11 + 251, "device", 6);
    body = bytes(text, 11 + 300);
    ngx_http_iothub_hub_error_parse(401, &header, &body, &err);
    ok(!err.unknown_device, "the device is too far");

    /* cut anywhere, nothing is made of a part */

    wrong = 0;
    body = str(FORMAT_1("DeviceNotFound"));

    for (i = 0; i < body.len; i++) {
        cut = bytes((char *) body.data, i);
        ngx_http_iothub_hub_error_parse(404, &header, &cut, &err);

        if (err.code != 0 && err.code != 404001) {
            wrong++;
        }

        if (err.code == 0 && err.name.len) {
            wrong++;
        }
    }

    is(wrong, 0, "a body cut anywhere");
}


static const char  *actions[] = {
    "done", "create", "other_key", "ask", "retry", "throttled", "quota",
    "disabled", "permanent"
};


#define DELIVERED      "done/delivered"
#define NO_DEVICE      "create/blocked"
#define DONE           "done/-"
#define RETRY          "retry/unavailable"
#define REFUSED        "permanent/refused"
#define MISCONFIGURED  "permanent/misconfigured"
#define OTHER_KEY      "other_key/credentials"
#define FORBIDDEN      "permanent/credentials"
#define QUOTA          "quota/quota"
#define DISABLED       "disabled/blocked"
#define FULL           "permanent/creation_limited"
#define THROTTLED      "throttled/throttled"
#define LIMITED        "throttled/creation_limited"

#define all(result)    result, result, result


static const answer_case_t  answers[] = {

    { 200, NULL, NULL, DELIVERED, DONE, DONE },
    { 201, NULL, NULL, DELIVERED, DONE, MISCONFIGURED },
    { 202, NULL, NULL, DELIVERED, DONE, MISCONFIGURED },
    { 203, NULL, NULL, MISCONFIGURED, DONE, MISCONFIGURED },
    { 204, NULL, NULL, DELIVERED, DONE, NO_DEVICE },
    { 205, NULL, NULL, MISCONFIGURED, DONE, MISCONFIGURED },
    { 206, NULL, NULL, MISCONFIGURED, DONE, MISCONFIGURED },
    { 299, NULL, NULL, MISCONFIGURED, DONE, MISCONFIGURED },

    { 0, NULL, NULL, all(RETRY) },
    { 0, "404001", "DeviceNotFound", all(RETRY) },
    { 1, NULL, NULL, all(RETRY) },
    { 2, NULL, NULL, all(RETRY) },
    { 4, NULL, NULL, all(RETRY) },
    { 10, NULL, NULL, all(RETRY) },
    { 99, NULL, NULL, all(RETRY) },
    { 100, NULL, NULL, all(RETRY) },
    { 101, NULL, NULL, all(RETRY) },
    { 103, NULL, NULL, all(RETRY) },
    { 600, NULL, NULL, all(RETRY) },
    { 999, NULL, NULL, all(RETRY) },
    { 1000, NULL, NULL, all(RETRY) },
    { 20400, NULL, NULL, all(RETRY) },

    { 300, NULL, NULL, all(MISCONFIGURED) },
    { 301, NULL, NULL, all(MISCONFIGURED) },
    { 302, NULL, NULL, all(MISCONFIGURED) },
    { 304, NULL, NULL, all(MISCONFIGURED) },
    { 307, NULL, NULL, all(MISCONFIGURED) },

    { 400, NULL, NULL, REFUSED, MISCONFIGURED, MISCONFIGURED },
    { 400, "400000", "GenericBadRequest", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400001", "InvalidProtocolVersion", all(MISCONFIGURED) },
    { 400, "400003", "InvalidOperation", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400004", "ArgumentInvalid", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400005", "ArgumentNull", REFUSED, MISCONFIGURED, MISCONFIGURED },
    { 400, "400006", "IotHubFormatError", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400011", "DeviceDefinedMultipleTimes", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400013", "BulkRegistryOperationFailure", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400021", "RequestCanceled", all(RETRY) },
    { 400, "400024", "RequestTimedOut", all(RETRY) },
    { 400, "400027", "ConnectionForcefullyClosedOnNewConnection",
      all(RETRY) },
    { 400, "400029", "ConnectionForcefullyClosedOnFaultInjection",
      all(RETRY) },
    { 400, "400030", "ConnectionRejectedOnFaultInjection", all(RETRY) },
    { 400, "400103", "InvalidContentEncodingOrType", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 400, "400999", "SomethingNew", REFUSED, MISCONFIGURED, MISCONFIGURED },

    { 401, NULL, NULL, all(OTHER_KEY) },
    { 401, "401000", "GenericUnauthorized", all(OTHER_KEY) },
    { 401, "401001", "IotHubNotFound", all(OTHER_KEY) },
    { 401, "401002", "IotHubUnauthorizedAccess", all(OTHER_KEY) },
    { 401, "401003", "IotHubUnauthorized", all(OTHER_KEY) },
    { 401, "404001", "DeviceNotFound", NO_DEVICE, OTHER_KEY, NO_DEVICE },
    { 402, NULL, NULL, all(MISCONFIGURED) },

    { 403, NULL, NULL, "ask/credentials", FORBIDDEN, FORBIDDEN },
    { 403, "403000", "GenericForbidden", "ask/credentials", FORBIDDEN,
      FORBIDDEN },
    { 403, "403001", "IotHubSuspended", all(MISCONFIGURED) },
    { 403, "403002", "IotHubQuotaExceeded", all(QUOTA) },
    { 403, "403010", "OperationNotAvailableInCurrentTier",
      all(MISCONFIGURED) },
    { 403, "403011", "KeyEncryptionKeyRevoked", all(MISCONFIGURED) },
    { 403, "403012", "DeviceDisabled", all(DISABLED) },
    { 403, "413002", "TooManyDevices", "ask/credentials", FULL, FORBIDDEN },

    { 404, NULL, NULL, all(MISCONFIGURED) },
    { 404, "404000", "GenericNotFound", all("retry/misconfigured") },
    { 404, "404001", "DeviceNotFound", NO_DEVICE, MISCONFIGURED, NO_DEVICE },
    { 404, "404012", "IotHubFailingOver", all(RETRY) },
    { 404, "404010", "ModuleNotFound", all(MISCONFIGURED) },

    { 405, NULL, NULL, all(MISCONFIGURED) },
    { 405, "405000", "GenericMethodNotAllowed", all(MISCONFIGURED) },
    { 405, "405102", "OperationNotAllowedInCurrentState",
      all(MISCONFIGURED) },
    { 407, NULL, NULL, all(MISCONFIGURED) },
    { 408, NULL, NULL, all(RETRY) },

    { 409, NULL, NULL, RETRY, DONE, RETRY },
    { 409, "409000", "GenericConflict", all(RETRY) },
    { 409, "409001", "DeviceAlreadyExists", RETRY, DONE, RETRY },
    { 409, "409102", "DeviceLocked", all(RETRY) },
    { 409, "409999", "SomethingNew", RETRY, DONE, RETRY },

    { 410, NULL, NULL, all(MISCONFIGURED) },
    { 411, NULL, NULL, all(MISCONFIGURED) },
    { 412, NULL, NULL, MISCONFIGURED, DONE, MISCONFIGURED },
    { 412, "412001", "PreconditionFailed", MISCONFIGURED, DONE,
      MISCONFIGURED },

    { 413, NULL, NULL, REFUSED, MISCONFIGURED, MISCONFIGURED },
    { 413, "413001", "MessageTooLarge", REFUSED, MISCONFIGURED,
      MISCONFIGURED },
    { 413, "413002", "TooManyDevices", REFUSED, FULL, MISCONFIGURED },
    { 414, NULL, NULL, REFUSED, MISCONFIGURED, MISCONFIGURED },
    { 415, NULL, NULL, all(MISCONFIGURED) },
    { 415, "415000", "GenericUnsupportedMediaType", all(MISCONFIGURED) },
    { 418, NULL, NULL, all(MISCONFIGURED) },

    { 429, NULL, NULL, THROTTLED, LIMITED, LIMITED },
    { 429, "429000", "GenericTooManyRequests", THROTTLED, LIMITED, LIMITED },
    { 429, "429001", "ThrottlingException", THROTTLED, LIMITED, LIMITED },
    { 429, "429002", "ThrottleBacklogLimitExceeded", THROTTLED, LIMITED,
      LIMITED },
    { 429, "429003", "ThrottlingBacklogTimeout", THROTTLED, LIMITED,
      LIMITED },
    { 429, "429004", "ThrottlingMaxActiveJobCountExceeded", THROTTLED,
      LIMITED, LIMITED },
    { 429, "429005", "DeviceThrottlingLimitExceeded", THROTTLED, LIMITED,
      LIMITED },
    { 431, NULL, NULL, REFUSED, MISCONFIGURED, MISCONFIGURED },
    { 499, NULL, NULL, all(RETRY) },
    { 499, "499000", "ClientClosedRequest", all(RETRY) },

    { 500, NULL, NULL, all(RETRY) },
    { 500, "500001", "ServerError", all(RETRY) },
    { 500, "500008", "GenericTimeout", all(RETRY) },
    { 500, "404001", "DeviceNotFound", all(RETRY) },
    { 500, "403012", "DeviceDisabled", all(RETRY) },
    { 501, NULL, NULL, all(RETRY) },
    { 502, NULL, NULL, all(RETRY) },
    { 502, "502000", "GenericBadGateway", all(RETRY) },
    { 503, NULL, NULL, all(RETRY) },
    { 503, "503000", "GenericServiceUnavailable", all(RETRY) },
    { 503, "503001", "ServiceUnavailable", all(RETRY) },
    { 503, "503005", "ServerBusy", all(RETRY) },
    { 503, "503006", "IotHubRestoring", all(RETRY) },
    { 504, NULL, NULL, all(RETRY) },
    { 504, "504000", "GenericGatewayTimeout", all(RETRY) },
    { 599, NULL, NULL, all(RETRY) }
};


static ngx_uint_t
verdict_is(ngx_http_iothub_operation_e operation, ngx_uint_t status,
    ngx_str_t *header, ngx_str_t *body, const char *want)
{
    char                              got[128];
    ngx_str_t                         word;
    hub_error_t                       err;
    const ngx_http_iothub_verdict_t  *verdict;

    ngx_http_iothub_hub_error_parse(status, header, body, &err);

    verdict = ngx_http_iothub_hub_error_classify(operation, status, &err);
    word = ngx_http_iothub_results[verdict->result].word;

    snprintf(got, sizeof(got), "%s/%.*s", actions[verdict->action],
             (int) word.len, (char *) word.data);

    if (strcmp(got, want) != 0) {
        note("operation %d: got %s, expected %s", (int) operation, got, want);
        return 0;
    }

    return verdict->detail != NULL && verdict->detail[0] != '\0';
}


static ngx_uint_t
answer_is(const answer_case_t *a, ngx_str_t *header, ngx_str_t *body)
{
    return verdict_is(SEND, a->status, header, body, a->send)
           & verdict_is(CREATE, a->status, header, body, a->create)
           & verdict_is(ASK, a->status, header, body, a->ask);
}


static void
test_classify(void)
{
    char                  text[512];
    ngx_str_t             none, header, body;
    ngx_uint_t            i;
    const answer_case_t  *a;

    ngx_str_null(&none);

    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        a = &answers[i];

        if (a->code == NULL) {
            body = str("<html>error</html>");

            ok(answer_is(a, &none, &none) & answer_is(a, &none, &body),
               "%d", (int) a->status);
            continue;
        }

        header = str(a->name);
        ok(answer_is(a, &header, &none), "%d %s by the header",
           (int) a->status, a->name);

        snprintf(text, sizeof(text), FORMAT_1("%s"), a->name);
        body = str(text);
        ok(answer_is(a, &none, &body), "%d %s by name", (int) a->status,
           a->name);

        snprintf(text, sizeof(text), FORMAT_2("%s"), a->code);
        body = str(text);
        ok(answer_is(a, &none, &body), "%d %s by code", (int) a->status,
           a->code);

        /* the header says nothing that is known */

        header = str("Unheard_of");
        ok(answer_is(a, &header, &body), "%d %s by code, with another name",
           (int) a->status, a->code);
    }
}


static void
test_unknown_device(void)
{
    ngx_str_t                         none, header, body;
    const ngx_http_iothub_verdict_t  *verdict;

    ngx_str_null(&none);

    /* code and name differ, and one of them is the telling one */

    header = str("ArgumentInvalid");
    body = str(FORMAT_2("400030"));
    ok(verdict_is(SEND, 400, &header, &body, RETRY), "the code tells");

    header = str("RequestTimedOut");
    body = str(FORMAT_2("400004"));
    ok(verdict_is(SEND, 400, &header, &body, RETRY), "the name tells");

    body = str(MISSING);

    ok(verdict_is(SEND, 401, &none, &body, NO_DEVICE),
       "401: a send to a device that is not there");
    ok(verdict_is(ASK, 401, &none, &body, NO_DEVICE),
       "401: a look-up of a device that is not there");
    ok(verdict_is(CREATE, 401, &none, &body, OTHER_KEY),
       "401: a creation needs another key");
    ok(verdict_is(SEND, 404, &none, &body, MISCONFIGURED),
       "404: the text alone does not count");

    verdict = ngx_http_iothub_hub_error_classify(SEND, 404, NULL);
    is(verdict->action, NGX_HTTP_IOTHUB_ACTION_PERMANENT, "no error given");
}


/* of code and name, the one that is missing is filled in */

static void
test_names(void)
{
    ngx_str_t             none, header;
    ngx_uint_t            i;
    hub_error_t           by_code, by_name;
    const answer_case_t  *a;

    ngx_str_null(&none);

    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        a = &answers[i];

        if (a->code == NULL || strcmp(a->name, "SomethingNew") == 0
            || strcmp(a->name, "ModuleNotFound") == 0)
        {
            continue;
        }

        header = str(a->code);
        ngx_http_iothub_hub_error_parse(a->status, &header, &none, &by_code);

        header = str(a->name);
        ngx_http_iothub_hub_error_parse(a->status, &header, &none, &by_name);

        is_str(&by_code.name, a->name, "the name of %s", a->code);
        is(by_name.code, atoi(a->code), "the code of %s", a->name);
    }
}


static void
test_name_characters(void)
{
    int           c;
    char          text[1];
    ngx_str_t     none, header;
    ngx_uint_t    wrong, want;
    hub_error_t   err;

    ngx_str_null(&none);
    wrong = 0;

    for (c = 0; c < 256; c++) {
        text[0] = (char) c;
        header = bytes(text, 1);

        ngx_http_iothub_hub_error_parse(404, &header, &none, &err);

        want = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';

        /* a digit is no name, but may be a part of one */

        if (err.name.len != want) {
            note("byte %d", c);
            wrong++;
        }
    }

    is(wrong, 0, "names: each byte");

    header = str("A0123456789");
    ngx_http_iothub_hub_error_parse(404, &header, &none, &err);
    is_str(&err.name, "A0123456789", "digits in a name");

    header = str("A:");
    ngx_http_iothub_hub_error_parse(404, &header, &none, &err);
    is_str(&err.name, "", "no colon in a name");
}


/* whatever the text says, only these are successes */

static void
test_never_done(void)
{
    ngx_uint_t                    status, i, done, want, wrong;
    hub_error_t                   err;
    ngx_str_t                     header, none;
    ngx_http_iothub_operation_e   operation;

    static const ngx_http_iothub_operation_e  operations[] = {
        SEND, CREATE, ASK
    };

    ngx_str_null(&none);
    header = str("DeviceAlreadyExists");
    wrong = 0;

    for (status = 0; status < 1100; status++) {
        for (i = 0; i < 3; i++) {
            operation = operations[i];

            ngx_http_iothub_hub_error_parse(status, &header, &none, &err);

            done = ngx_http_iothub_hub_error_classify(operation, status, &err)
                       ->action == NGX_HTTP_IOTHUB_ACTION_DONE;

            switch (operation) {

            case SEND:
                want = status == 200 || status == 201 || status == 202
                       || status == 204;
                break;

            case CREATE:
                want = (status >= 200 && status < 300) || status == 409
                       || status == 412;
                break;

            default:
                want = status == 200;
                break;
            }

            if (done != want) {
                note("status %d, operation %d", (int) status,
                     (int) operation);
                wrong++;
            }
        }
    }

    is(wrong, 0, "no other status is a success");
}


static void
device_is(const char *text, ngx_http_iothub_device_status_e want,
    const char *what)
{
    ngx_str_t  body;

    body = str(text);
    is(ngx_http_iothub_hub_error_device_status(&body), want, "%s", what);
}


static void
test_device_status(void)
{
    size_t       i;
    ngx_str_t    body;
    ngx_uint_t   wrong, got;

    static const char  document[] =
        "{\"deviceId\":\"dev-1\",\"generationId\":\"637\",\"etag\":\"MTIz\","
        "\"connectionState\":\"Disconnected\",\"status\":\"disabled\","
        "\"statusReason\":null,\"connectionStateUpdatedTime\":"
        "\"0001-01-01T00:00:00Z\",\"authentication\":{\"symmetricKey\":"
        "{\"primaryKey\":\"\",\"secondaryKey\":\"\"},\"type\":\"sas\"}}";

    device_is(document, NGX_HTTP_IOTHUB_DEVICE_DISABLED, "a document");
    device_is("{\"status\":\"enabled\"}", NGX_HTTP_IOTHUB_DEVICE_ENABLED,
              "enabled");
    device_is("\r\n{ \"a\" : [ ] ,\t\"status\" : \"Enabled\" }",
              NGX_HTTP_IOTHUB_DEVICE_ENABLED, "with blanks");
    device_is("{\"a\":{\"status\":\"disabled\"},\"status\":\"enabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_ENABLED, "the root's, after another");
    device_is("{\"status\":\"enabled\",\"a\":[{\"status\":\"disabled\"}]}",
              NGX_HTTP_IOTHUB_DEVICE_ENABLED, "the root's, before another");
    device_is("{\"a\":{\"status\":\"disabled\"}}",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "not the root's");
    device_is("{\"a\":[\"status\",\"disabled\"]}",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "in an array");
    device_is("{\"statusReason\":\"status\",\"b\":\"disabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "a value, no name");
    device_is("{\"statusReason\":\"\\\"status\\\":\\\"disabled\\\"\","
              "\"status\":\"enabled\"}", NGX_HTTP_IOTHUB_DEVICE_ENABLED,
              "inside of a string");
    device_is("{\"a\":\"}\\\\\",\"status\":\"enabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_ENABLED, "brackets and backslashes in a "
              "string");
    device_is("{\"a\":\"{\",\"status\":\"enabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_ENABLED, "a bracket in a string");
    device_is("{}{\"status\":\"enabled\"}", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN,
              "after the root");
    device_is("{\"status\":\"enabled\",\"status\":\"disabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "both");
    device_is("{\"status\":\"disabled\",\"status\":\"enabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "both, the other way");
    device_is("{\"status\":\"x\",\"status\":\"enabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "another, and one");
    device_is("{\"status\":\"enabled\",\"status\":\"enabled\"}",
              NGX_HTTP_IOTHUB_DEVICE_ENABLED, "the same twice");
    device_is("{\"status\":\"enabledish\"}", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN,
              "another word");
    device_is("{\"status\":null}", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "null");
    device_is("{\"status\":1}", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "a number");
    device_is("{\"status\"}", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "no value");
    device_is("[{\"status\":\"disabled\"}]", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN,
              "a root that is an array");
    device_is("\"status\":\"disabled\"", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN,
              "no root");
    device_is("<html>\"status\":\"disabled\"</html>",
              NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "HTML");
    device_is("", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "empty");
    device_is("   ", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "blanks");
    device_is("{]}}}\"status\":\"disabled\"", NGX_HTTP_IOTHUB_DEVICE_UNKNOWN,
              "garbage");

    ngx_str_null(&body);
    is(ngx_http_iothub_hub_error_device_status(&body),
       NGX_HTTP_IOTHUB_DEVICE_UNKNOWN, "none");

    wrong = 0;

    for (i = 0; i < sizeof(document); i++) {
        body = bytes(document, i);
        got = ngx_http_iothub_hub_error_device_status(&body);

        if (got == NGX_HTTP_IOTHUB_DEVICE_ENABLED) {
            wrong++;
        }
    }

    is(wrong, 0, "a document cut anywhere is never enabled");
}


static void
after_is(const char *text, time_t now, ngx_uint_t want)
{
    ngx_str_t  value;

    value = str(text);
    is(ngx_http_iothub_hub_error_retry_after(&value, now), want,
       "Retry-After: %s", text);
}


static void
test_retry_after(void)
{
    ngx_str_t  value;

    after_is("10", 0, 10);
    after_is("1", 0, 1);
    after_is("0", 0, 0);
    after_is("007", 0, 7);
    after_is("86400", 0, 86400);
    after_is("86401", 0, 86400);
    after_is("99999999999999999999999999999999999", 0, 86400);
    after_is("", 0, 0);
    after_is("-1", 0, 0);
    after_is("+5", 0, 0);
    after_is("1.5", 0, 0);
    after_is("soon", 0, 0);
    after_is("Sun, 06 Nov 1994 08:49:37 GMT", 784111757, 20);
    after_is("Sun, 06 Nov 1994 08:49:37 GMT", 784111777, 0);
    after_is("Sun, 06 Nov 1994 08:49:37 GMT", 784111797, 0);
    after_is("Sun, 06 Nov 1994 08:49:37 GMT", 0, 86400);
    after_is("Sunday, 06-Nov-94 08:49:37 GMT", 784111757, 20);
    after_is("Sun, 31 Feb 1994 08:49:37 GMT", 0, 0);
    after_is("Sun, 06 Nov", 0, 0);

    ngx_str_null(&value);
    is(ngx_http_iothub_hub_error_retry_after(&value, 0), 0,
       "no Retry-After");
}


int
main(int argc, char *const *argv)
{
    ngx_log_t  log;

    ngx_memzero(&log, sizeof(ngx_log_t));
    ngx_pagesize = 4096;

    pool = ngx_create_pool(4096, &log);
    if (pool == NULL) {
        return 2;
    }

    test_parse();
    test_parse_bounds();
    test_classify();
    test_unknown_device();
    test_names();
    test_name_characters();
    test_never_done();
    test_device_status();
    test_retry_after();

    ngx_destroy_pool(pool);

    return done_testing();
}
