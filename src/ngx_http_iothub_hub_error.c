
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_hub_error.h"


/* how far from the words that say "not found" the word "device" may be */
#define NGX_HTTP_IOTHUB_HUB_ERROR_NEAR  256

#define NGX_HTTP_IOTHUB_HUB_ERROR_RETRY_MAX  86400

/* a row's status below this is the first digit of a class of them */
#define NGX_HTTP_IOTHUB_HUB_ERROR_CLASSES  10

#define NGX_HTTP_IOTHUB_SEND    NGX_HTTP_IOTHUB_OPERATION_SEND
#define NGX_HTTP_IOTHUB_CREATE  NGX_HTTP_IOTHUB_OPERATION_CREATE
#define NGX_HTTP_IOTHUB_ASK     NGX_HTTP_IOTHUB_OPERATION_ASK
#define NGX_HTTP_IOTHUB_CALL    (NGX_HTTP_IOTHUB_SEND|NGX_HTTP_IOTHUB_CREATE  \
                                 |NGX_HTTP_IOTHUB_ASK)

#define ngx_http_iothub_verdict(action, result, detail)                       \
    { NGX_HTTP_IOTHUB_ACTION_ ## action, NGX_HTTP_IOTHUB_ ## result, detail }


typedef struct {
    ngx_uint_t                  code;
    ngx_str_t                   name;
} ngx_http_iothub_hub_error_name_t;


typedef struct {
    ngx_uint_t                  operations;
    ngx_uint_t                  status;
    ngx_uint_t                  code;        /* 0: any and none */
    ngx_http_iothub_verdict_t   verdict;
} ngx_http_iothub_hub_error_row_t;


typedef struct {
    ngx_str_t                   words;
    unsigned                    device_follows:1;
} ngx_http_iothub_hub_error_missing_t;


static void ngx_http_iothub_hub_error_body(ngx_str_t *body,
    ngx_http_iothub_hub_error_t *err);
static void ngx_http_iothub_hub_error_token(ngx_str_t *token,
    ngx_http_iothub_hub_error_t *err);
static ngx_uint_t ngx_http_iothub_hub_error_is_token(u_char c);
static void ngx_http_iothub_hub_error_complete(
    ngx_http_iothub_hub_error_t *err);
static ngx_uint_t ngx_http_iothub_hub_error_code(ngx_str_t *name);
static ngx_uint_t ngx_http_iothub_hub_error_missing(ngx_str_t *body);
static u_char *ngx_http_iothub_hub_error_find(u_char *p, u_char *last,
    const ngx_str_t *lowcase);
static ngx_uint_t ngx_http_iothub_hub_error_match(
    const ngx_http_iothub_hub_error_row_t *row, ngx_uint_t status,
    ngx_http_iothub_hub_error_t *err, ngx_uint_t named);
static u_char *ngx_http_iothub_hub_error_quote(u_char *p, u_char *last,
    ngx_uint_t *depth);
static ngx_http_iothub_device_status_e ngx_http_iothub_hub_error_status_value(
    u_char *p, u_char *last);
static u_char *ngx_http_iothub_hub_error_string(u_char *p, u_char *last);
static u_char *ngx_http_iothub_hub_error_blanks(u_char *p, u_char *last);


/*
 * Codes and names of errors that say something to this module: answers hold
 * one, the other, or both.
 */

static const ngx_http_iothub_hub_error_name_t
    ngx_http_iothub_hub_error_names[] =
{
    { 400000, ngx_string("GenericBadRequest") },
    { 400001, ngx_string("InvalidProtocolVersion") },
    { 400003, ngx_string("InvalidOperation") },
    { 400004, ngx_string("ArgumentInvalid") },
    { 400005, ngx_string("ArgumentNull") },
    { 400006, ngx_string("IotHubFormatError") },
    { 400011, ngx_string("DeviceDefinedMultipleTimes") },
    { 400013, ngx_string("BulkRegistryOperationFailure") },
    { 400021, ngx_string("RequestCanceled") },
    { 400024, ngx_string("RequestTimedOut") },
    { 400027, ngx_string("ConnectionForcefullyClosedOnNewConnection") },
    { 400029, ngx_string("ConnectionForcefullyClosedOnFaultInjection") },
    { 400030, ngx_string("ConnectionRejectedOnFaultInjection") },
    { 400029, ngx_string("ConnectionForcefullyClosed") },
    { 400030, ngx_string("ConnectionRejected") },
    { 400103, ngx_string("InvalidContentEncodingOrType") },
    { 401000, ngx_string("GenericUnauthorized") },
    { 401001, ngx_string("IotHubNotFound") },
    { 401002, ngx_string("IotHubUnauthorizedAccess") },
    { 401003, ngx_string("IotHubUnauthorized") },
    { 403000, ngx_string("GenericForbidden") },
    { 403001, ngx_string("IotHubSuspended") },
    { 403002, ngx_string("IotHubQuotaExceeded") },
    { 403010, ngx_string("OperationNotAvailableInCurrentTier") },
    { 403011, ngx_string("KeyEncryptionKeyRevoked") },
    { 403012, ngx_string("DeviceDisabled") },
    { 404000, ngx_string("GenericNotFound") },
    { 404001, ngx_string("DeviceNotFound") },
    { 404012, ngx_string("IotHubFailingOver") },
    { 405000, ngx_string("GenericMethodNotAllowed") },
    { 405102, ngx_string("OperationNotAllowedInCurrentState") },
    { 409000, ngx_string("GenericConflict") },
    { 409001, ngx_string("DeviceAlreadyExists") },
    { 409102, ngx_string("DeviceLocked") },
    { 412000, ngx_string("GenericPreconditionFailed") },
    { 412001, ngx_string("PreconditionFailed") },
    { 413000, ngx_string("GenericRequestEntityTooLarge") },
    { 413001, ngx_string("MessageTooLarge") },
    { 413002, ngx_string("TooManyDevices") },
    { 415000, ngx_string("GenericUnsupportedMediaType") },
    { 429000, ngx_string("GenericTooManyRequests") },
    { 429001, ngx_string("ThrottlingException") },
    { 429002, ngx_string("ThrottleBacklogLimitExceeded") },
    { 429003, ngx_string("ThrottlingBacklogTimeout") },
    { 429004, ngx_string("ThrottlingMaxActiveJobCountExceeded") },
    { 429005, ngx_string("DeviceThrottlingLimitExceeded") },
    { 499000, ngx_string("ClientClosedRequest") },
    { 500001, ngx_string("ServerError") },
    { 500008, ngx_string("GenericTimeout") },
    { 502000, ngx_string("GenericBadGateway") },
    { 503000, ngx_string("GenericServiceUnavailable") },
    { 503001, ngx_string("ServiceUnavailable") },
    { 503005, ngx_string("ServerBusy") },
    { 503006, ngx_string("IotHubRestoring") },
    { 504000, ngx_string("GenericGatewayTimeout") }
};


/*
 * The table of what an answer means: the first row that fits is taken, so
 * those with a code come before those of the status, and these before those
 * of a class of statuses.
 *
 * An error that no row names is that of its status.  Where the fault may be
 * the event's, the sender is told so (refused); where it is that of the
 * gateway's or the hub's configuration, a later webhook may get through
 * (misconfigured).  A registry call holds nothing of the event but the device
 * id, which was checked: it is never the event that is refused there.
 *
 * https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
 */

static const ngx_http_iothub_hub_error_row_t
    ngx_http_iothub_hub_error_rows[] =
{
    /* success, each status by itself for a send */

    { NGX_HTTP_IOTHUB_SEND, 204, 0,
      ngx_http_iothub_verdict(DONE, DELIVERED, "the hub accepted") },

    { NGX_HTTP_IOTHUB_SEND, 200, 0,
      ngx_http_iothub_verdict(DONE, DELIVERED, "the hub accepted") },

    { NGX_HTTP_IOTHUB_SEND, 201, 0,
      ngx_http_iothub_verdict(DONE, DELIVERED, "the hub accepted") },

    { NGX_HTTP_IOTHUB_SEND, 202, 0,
      ngx_http_iothub_verdict(DONE, DELIVERED, "the hub accepted") },

    { NGX_HTTP_IOTHUB_ASK, 200, 0,
      ngx_http_iothub_verdict(DONE, NO_RESULT, "the identity exists") },

    { NGX_HTTP_IOTHUB_ASK, 204, 0,
      ngx_http_iothub_verdict(CREATE, BLOCKED,
                              "the device is not in the hub") },

    { NGX_HTTP_IOTHUB_CREATE, 2, 0,
      ngx_http_iothub_verdict(DONE, NO_RESULT, "the identity is created") },

    { NGX_HTTP_IOTHUB_SEND|NGX_HTTP_IOTHUB_ASK, 2, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "a success that is not IoT Hub's") },

    /* 400; some of them pass */

    { NGX_HTTP_IOTHUB_CALL, 400, 400001,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub does not know this api_version") },

    { NGX_HTTP_IOTHUB_CALL, 400, 400021,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub canceled the request") },

    { NGX_HTTP_IOTHUB_CALL, 400, 400024,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the request timed out in the hub") },

    { NGX_HTTP_IOTHUB_CALL, 400, 400027,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub closed the connection") },

    { NGX_HTTP_IOTHUB_CALL, 400, 400029,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub closed the connection") },

    { NGX_HTTP_IOTHUB_CALL, 400, 400030,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub rejected the connection") },

    { NGX_HTTP_IOTHUB_SEND, 400, 400103,
      ngx_http_iothub_verdict(PERMANENT, REFUSED,
                              "the hub refuses the content type or "
                              "encoding") },

    { NGX_HTTP_IOTHUB_SEND, 400, 0,
      ngx_http_iothub_verdict(PERMANENT, REFUSED,
                              "the hub refuses the message as wrong") },

    { NGX_HTTP_IOTHUB_CREATE, 400, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub refuses to create the identity: its "
                              "members may be wrong") },

    { NGX_HTTP_IOTHUB_ASK, 400, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub refuses to look up the identity") },

    /* 401 */

    { NGX_HTTP_IOTHUB_SEND|NGX_HTTP_IOTHUB_ASK, 401, 404001,
      ngx_http_iothub_verdict(CREATE, BLOCKED,
                              "the device is not in the hub") },

    { NGX_HTTP_IOTHUB_CALL, 401, 401001,
      ngx_http_iothub_verdict(OTHER_KEY, CREDENTIALS,
                              "the hub's name is not known to Azure") },

    { NGX_HTTP_IOTHUB_SEND, 401, 0,
      ngx_http_iothub_verdict(OTHER_KEY, CREDENTIALS,
                              "the hub refuses the token, or the policy "
                              "lacks device connect") },

    { NGX_HTTP_IOTHUB_CREATE, 401, 0,
      ngx_http_iothub_verdict(OTHER_KEY, CREDENTIALS,
                              "the hub refuses the token, or the policy "
                              "lacks registry write") },

    { NGX_HTTP_IOTHUB_ASK, 401, 0,
      ngx_http_iothub_verdict(OTHER_KEY, CREDENTIALS,
                              "the hub refuses the token, or the policy "
                              "lacks registry read") },

    /* 403 */

    { NGX_HTTP_IOTHUB_CALL, 403, 403001,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub is suspended") },

    { NGX_HTTP_IOTHUB_CALL, 403, 403002,
      ngx_http_iothub_verdict(QUOTA, QUOTA, "the hub's quota is spent") },

    { NGX_HTTP_IOTHUB_CALL, 403, 403010,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub's tier does not allow this") },

    { NGX_HTTP_IOTHUB_CALL, 403, 403011,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub's encryption key is revoked") },

    { NGX_HTTP_IOTHUB_CALL, 403, 403012,
      ngx_http_iothub_verdict(DISABLED, BLOCKED,
                              "the device is disabled in the hub") },

    { NGX_HTTP_IOTHUB_CREATE, 403, 413002,
      ngx_http_iothub_verdict(PERMANENT, CREATION_LIMITED,
                              "the hub's registry is full") },

    { NGX_HTTP_IOTHUB_SEND, 403, 0,
      ngx_http_iothub_verdict(ASK, CREDENTIALS,
                              "the hub forbids messages of this device") },

    { NGX_HTTP_IOTHUB_CREATE|NGX_HTTP_IOTHUB_ASK, 403, 0,
      ngx_http_iothub_verdict(PERMANENT, CREDENTIALS,
                              "the hub forbids the registry") },

    /* 404: only one of them says that the identity is missing */

    { NGX_HTTP_IOTHUB_SEND|NGX_HTTP_IOTHUB_ASK, 404, 404001,
      ngx_http_iothub_verdict(CREATE, BLOCKED,
                              "the device is not in the hub") },

    { NGX_HTTP_IOTHUB_CALL, 404, 404012,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub is failing over") },

    { NGX_HTTP_IOTHUB_CALL, 404, 404000,
      ngx_http_iothub_verdict(RETRY, MISCONFIGURED,
                              "the hub does not know the path") },

    { NGX_HTTP_IOTHUB_CALL, 404, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "not found, and it is not the device") },

    /* the rest of 4xx */

    { NGX_HTTP_IOTHUB_CALL, 405, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub does not allow the method") },

    { NGX_HTTP_IOTHUB_CALL, 408, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the request timed out in the hub") },

    { NGX_HTTP_IOTHUB_CALL, 409, 409000,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "a conflict in the hub") },

    { NGX_HTTP_IOTHUB_CALL, 409, 409102,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the device is locked in the hub") },

    { NGX_HTTP_IOTHUB_CREATE, 409, 0,
      ngx_http_iothub_verdict(DONE, NO_RESULT, "the identity exists") },

    { NGX_HTTP_IOTHUB_SEND|NGX_HTTP_IOTHUB_ASK, 409, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "a conflict in the hub") },

    { NGX_HTTP_IOTHUB_CREATE, 412, 0,
      ngx_http_iothub_verdict(DONE, NO_RESULT, "the identity exists") },

    { NGX_HTTP_IOTHUB_CREATE, 413, 413002,
      ngx_http_iothub_verdict(PERMANENT, CREATION_LIMITED,
                              "the hub's registry is full") },

    { NGX_HTTP_IOTHUB_SEND, 413, 0,
      ngx_http_iothub_verdict(PERMANENT, REFUSED,
                              "the hub refuses the message as too large") },

    { NGX_HTTP_IOTHUB_SEND, 414, 0,
      ngx_http_iothub_verdict(PERMANENT, REFUSED,
                              "the hub refuses the device id as too long") },

    { NGX_HTTP_IOTHUB_CALL, 415, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub does not take the media type") },

    { NGX_HTTP_IOTHUB_SEND, 429, 0,
      ngx_http_iothub_verdict(THROTTLED, THROTTLED,
                              "the hub throttles messages") },

    { NGX_HTTP_IOTHUB_CREATE|NGX_HTTP_IOTHUB_ASK, 429, 0,
      ngx_http_iothub_verdict(THROTTLED, CREATION_LIMITED,
                              "the hub throttles its registry") },

    { NGX_HTTP_IOTHUB_SEND, 431, 0,
      ngx_http_iothub_verdict(PERMANENT, REFUSED,
                              "the hub refuses the properties as too "
                              "large") },

    { NGX_HTTP_IOTHUB_CALL, 499, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub gave the request up") },

    /* 5xx that are known by name */

    { NGX_HTTP_IOTHUB_CALL, 500, 500008,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the request timed out in the hub") },

    { NGX_HTTP_IOTHUB_CALL, 503, 503005,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE, "the hub is busy") },

    { NGX_HTTP_IOTHUB_CALL, 503, 503006,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE, "the hub is restoring") },

    { NGX_HTTP_IOTHUB_CALL, 504, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the request timed out in the hub") },

    /* classes of statuses; 0: not one byte of an answer that counts */

    { NGX_HTTP_IOTHUB_CALL, 5, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "the hub has an internal error") },

    { NGX_HTTP_IOTHUB_CALL, 0, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "no answer of the hub") },

    { NGX_HTTP_IOTHUB_CALL, 1, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "no final answer of the hub") },

    { NGX_HTTP_IOTHUB_CALL, 3, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "a redirect, which IoT Hub never answers") },

    { NGX_HTTP_IOTHUB_CALL, 4, 0,
      ngx_http_iothub_verdict(PERMANENT, MISCONFIGURED,
                              "the hub refuses the request") },

    { NGX_HTTP_IOTHUB_CALL, NGX_HTTP_IOTHUB_HUB_ERROR_CLASSES, 0,
      ngx_http_iothub_verdict(RETRY, UNAVAILABLE,
                              "no answer of the hub") }
};


/* how a text says that a device is missing, and where it names the device */

static const ngx_http_iothub_hub_error_missing_t
    ngx_http_iothub_hub_error_missings[] =
{
    { ngx_string("not contain"), 1 },
    { ngx_string("not found"), 0 },
    { ngx_string("not exist"), 0 },
    { ngx_string("not registered"), 0 }
};


static const ngx_str_t  ngx_http_iothub_hub_error_device =
    ngx_string("device");

static const ngx_str_t  ngx_http_iothub_hub_error_key =
    ngx_string("errorcode");

static const ngx_str_t  ngx_http_iothub_hub_error_status =
    ngx_string("\"status\"");


void
ngx_http_iothub_hub_error_parse(ngx_uint_t status, ngx_str_t *header,
    ngx_str_t *body, ngx_http_iothub_hub_error_t *err)
{
    size_t     i;
    ngx_str_t  text;

    ngx_memzero(err, sizeof(ngx_http_iothub_hub_error_t));

    /* a success names no error, though an identity may be long to search */

    if (status / 100 == 2 || (header->len == 0 && body->len == 0)) {
        return;
    }

    for (i = 0; i < header->len; i++) {
        if (!ngx_http_iothub_hub_error_is_token(header->data[i])) {
            break;
        }
    }

    if (i == header->len) {
        ngx_http_iothub_hub_error_token(header, err);
    }

    text.data = body->data;
    text.len = ngx_min(body->len, NGX_HTTP_IOTHUB_HUB_ERROR_SCAN_MAX);

    if (text.len) {
        ngx_http_iothub_hub_error_body(&text, err);
    }

    ngx_http_iothub_hub_error_complete(err);

    if (status == 401
        && (err->code == 404001
            || ngx_http_iothub_hub_error_code(&err->name) == 404001
            || ngx_http_iothub_hub_error_missing(&text)))
    {
        err->unknown_device = 1;
    }
}


/*
 * Both formats at once: the key, then quotes, backslashes and blanks around
 * a colon, then the token.  What touches the end may have been cut.
 */

static void
ngx_http_iothub_hub_error_body(ngx_str_t *body,
    ngx_http_iothub_hub_error_t *err)
{
    u_char      *p, *last;
    ngx_str_t    token;
    ngx_uint_t   colons;

    p = body->data;
    last = p + body->len;

    for ( ;; ) {
        p = ngx_http_iothub_hub_error_find(p, last,
                                           &ngx_http_iothub_hub_error_key);

        if (p == NULL) {
            return;
        }

        p += ngx_http_iothub_hub_error_key.len;
        colons = 0;

        while (p < last
               && (*p == '"' || *p == '\\' || *p == ' ' || *p == ':'))
        {
            colons += *p++ == ':';
        }

        token.data = p;

        while (p < last && ngx_http_iothub_hub_error_is_token(*p)) {
            p++;
        }

        token.len = p - token.data;

        if (colons == 1 && p < last) {
            ngx_http_iothub_hub_error_token(&token, err);
        }
    }
}


/* a code or a name; the first of each counts */

static void
ngx_http_iothub_hub_error_token(ngx_str_t *token,
    ngx_http_iothub_hub_error_t *err)
{
    size_t  digits;

    if (token->len == 0 || token->len > NGX_HTTP_IOTHUB_HUB_ERROR_NAME_MAX) {
        return;
    }

    for (digits = 0; digits < token->len; digits++) {
        if (token->data[digits] < '0' || token->data[digits] > '9') {

            if (err->name.len == 0) {
                err->name = *token;
            }

            return;
        }
    }

    if (err->code == 0 && digits == sizeof("404001") - 1) {
        err->code = ngx_atoi(token->data, digits);
    }
}


static ngx_uint_t
ngx_http_iothub_hub_error_is_token(u_char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
           || (c >= 'a' && c <= 'z') || c == '_';
}


static void
ngx_http_iothub_hub_error_complete(ngx_http_iothub_hub_error_t *err)
{
    ngx_uint_t  i, n;

    if (err->code == 0) {
        err->code = ngx_http_iothub_hub_error_code(&err->name);
        return;
    }

    if (err->name.len) {
        return;
    }

    n = sizeof(ngx_http_iothub_hub_error_names)
        / sizeof(ngx_http_iothub_hub_error_name_t);

    for (i = 0; i < n; i++) {
        if (ngx_http_iothub_hub_error_names[i].code == err->code) {
            err->name = ngx_http_iothub_hub_error_names[i].name;
            return;
        }
    }
}


/* 0 if the name is not known */

static ngx_uint_t
ngx_http_iothub_hub_error_code(ngx_str_t *name)
{
    ngx_uint_t                               i, n;
    const ngx_http_iothub_hub_error_name_t  *known;

    if (name->len == 0) {
        return 0;
    }

    known = ngx_http_iothub_hub_error_names;
    n = sizeof(ngx_http_iothub_hub_error_names)
        / sizeof(ngx_http_iothub_hub_error_name_t);

    for (i = 0; i < n; i++) {
        if (name->len == known[i].name.len
            && ngx_strncasecmp(name->data, known[i].name.data, name->len)
               == 0)
        {
            return known[i].code;
        }
    }

    return 0;
}


/* does the text of an error say that the hub lacks the device? */

static ngx_uint_t
ngx_http_iothub_hub_error_missing(ngx_str_t *body)
{
    u_char                                     *p, *end, *from, *to, *last;
    ngx_uint_t                                  i, n;
    const ngx_http_iothub_hub_error_missing_t  *missing;

    if (body->len == 0) {
        return 0;
    }

    last = body->data + body->len;
    missing = ngx_http_iothub_hub_error_missings;
    n = sizeof(ngx_http_iothub_hub_error_missings)
        / sizeof(ngx_http_iothub_hub_error_missing_t);

    for (i = 0; i < n; i++) {

        for (p = body->data; p; p = end) {

            p = ngx_http_iothub_hub_error_find(p, last, &missing[i].words);
            if (p == NULL) {
                break;
            }

            end = p + missing[i].words.len;

            if (missing[i].device_follows) {
                from = end;
                to = end + ngx_min(last - end,
                                   NGX_HTTP_IOTHUB_HUB_ERROR_NEAR);
            } else {
                from = p - ngx_min(p - body->data,
                                   NGX_HTTP_IOTHUB_HUB_ERROR_NEAR);
                to = p;
            }

            if (ngx_http_iothub_hub_error_find(from, to,
                                        &ngx_http_iothub_hub_error_device))
            {
                return 1;
            }
        }
    }

    return 0;
}


static u_char *
ngx_http_iothub_hub_error_find(u_char *p, u_char *last,
    const ngx_str_t *lowcase)
{
    /* ngx_strlcasestrn() would step back before the start */

    if ((size_t) (last - p) < lowcase->len) {
        return NULL;
    }

    return ngx_strlcasestrn(p, last, lowcase->data, lowcase->len - 1);
}


const ngx_http_iothub_verdict_t *
ngx_http_iothub_hub_error_classify(ngx_http_iothub_operation_e operation,
    ngx_uint_t status, ngx_http_iothub_hub_error_t *err)
{
    ngx_uint_t                              named;
    const ngx_http_iothub_hub_error_row_t  *row, *last;

    /* code and name of one answer may differ: either may be the telling one */

    named = err ? ngx_http_iothub_hub_error_code(&err->name) : 0;

    row = ngx_http_iothub_hub_error_rows;
    last = row + sizeof(ngx_http_iothub_hub_error_rows)
                 / sizeof(ngx_http_iothub_hub_error_row_t) - 1;

    /* the last row is about every status */

    for ( /* void */ ; row < last; row++) {
        if ((row->operations & operation)
            && ngx_http_iothub_hub_error_match(row, status, err, named))
        {
            break;
        }
    }

    return &row->verdict;
}


static ngx_uint_t
ngx_http_iothub_hub_error_match(const ngx_http_iothub_hub_error_row_t *row,
    ngx_uint_t status, ngx_http_iothub_hub_error_t *err, ngx_uint_t named)
{
    if (row->status < NGX_HTTP_IOTHUB_HUB_ERROR_CLASSES) {
        status /= 100;
    }

    if (row->status != status) {
        return 0;
    }

    if (row->code == 0) {
        return 1;
    }

    if (err == NULL) {
        return 0;
    }

    return row->code == err->code || row->code == named
           || (row->code == 404001 && err->unknown_device);
}


ngx_http_iothub_device_status_e
ngx_http_iothub_hub_error_device_status(ngx_str_t *body)
{
    u_char                           *p, *start, *last;
    ngx_uint_t                        depth, found;
    ngx_http_iothub_device_status_e   status, value;

    if (body->len == 0) {
        return NGX_HTTP_IOTHUB_DEVICE_UNKNOWN;
    }

    last = body->data + body->len;
    p = ngx_http_iothub_hub_error_blanks(body->data, last);

    if (p == last || *p != '{') {
        return NGX_HTTP_IOTHUB_DEVICE_UNKNOWN;
    }

    found = 0;
    depth = 0;
    status = NGX_HTTP_IOTHUB_DEVICE_UNKNOWN;

    for ( ;; ) {
        start = ngx_http_iothub_hub_error_quote(p, last, &depth);
        if (start == NULL) {
            return status;
        }

        p = ngx_http_iothub_hub_error_string(start, last);

        if (depth != 1
            || (size_t) (p - start) != ngx_http_iothub_hub_error_status.len
            || ngx_memcmp(start, ngx_http_iothub_hub_error_status.data,
                          ngx_http_iothub_hub_error_status.len)
               != 0)
        {
            continue;
        }

        /* a name, if a colon follows; else it is another member's value */

        p = ngx_http_iothub_hub_error_blanks(p, last);

        if (p == last || *p != ':') {
            continue;
        }

        p = ngx_http_iothub_hub_error_blanks(p + 1, last);
        value = ngx_http_iothub_hub_error_status_value(p, last);

        if (found++ && value != status) {
            return NGX_HTTP_IOTHUB_DEVICE_UNKNOWN;
        }

        status = value;
    }
}


/* the next string, or NULL where the root or the text ends */

static u_char *
ngx_http_iothub_hub_error_quote(u_char *p, u_char *last, ngx_uint_t *depth)
{
    for ( /* void */ ; p < last; p++) {

        switch (*p) {

        case '"':
            return p;

        case '{':
        case '[':
            (*depth)++;
            break;

        case '}':
        case ']':

            if (--(*depth) == 0) {
                return NULL;
            }

            break;
        }
    }

    return NULL;
}


static ngx_http_iothub_device_status_e
ngx_http_iothub_hub_error_status_value(u_char *p, u_char *last)
{
    size_t  len;

    len = last - p;

    if (len >= sizeof("\"enabled\"") - 1
        && ngx_strncasecmp(p, (u_char *) "\"enabled\"",
                           sizeof("\"enabled\"") - 1)
           == 0)
    {
        return NGX_HTTP_IOTHUB_DEVICE_ENABLED;
    }

    if (len >= sizeof("\"disabled\"") - 1
        && ngx_strncasecmp(p, (u_char *) "\"disabled\"",
                           sizeof("\"disabled\"") - 1)
           == 0)
    {
        return NGX_HTTP_IOTHUB_DEVICE_DISABLED;
    }

    return NGX_HTTP_IOTHUB_DEVICE_UNKNOWN;
}


/* p is at a quote: returns what is after the string, or last */

static u_char *
ngx_http_iothub_hub_error_string(u_char *p, u_char *last)
{
    for (p++; p < last; p++) {

        if (*p == '"') {
            return p + 1;
        }

        if (*p == '\\' && ++p == last) {
            break;
        }
    }

    return last;
}


static u_char *
ngx_http_iothub_hub_error_blanks(u_char *p, u_char *last)
{
    while (p < last
           && (*p == ' ' || *p == '\t' || *p == CR || *p == LF))
    {
        p++;
    }

    return p;
}


ngx_uint_t
ngx_http_iothub_hub_error_retry_after(ngx_str_t *value, time_t now)
{
    size_t  i;
    time_t  seconds;

    if (value->len == 0) {
        return 0;
    }

    seconds = 0;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < '0' || value->data[i] > '9') {
            break;
        }

        seconds = ngx_min(seconds * 10 + (value->data[i] - '0'),
                          NGX_HTTP_IOTHUB_HUB_ERROR_RETRY_MAX);
    }

    if (i != value->len) {

        seconds = ngx_parse_http_time(value->data, value->len);

        if (seconds == NGX_ERROR) {
            return 0;
        }

        seconds -= now;
    }

    if (seconds < 0) {
        return 0;
    }

    return ngx_min(seconds, NGX_HTTP_IOTHUB_HUB_ERROR_RETRY_MAX);
}
