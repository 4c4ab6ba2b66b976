
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the hub_error room.  An input is a hub's answer: the status
 * in digits, a blank, the value of iothub-errorcode up to the first line
 * feed, and the body: "404 DeviceNotFound\n{...}".
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_hub_error.h"


#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* a buffer of exact size, so that a step out of it is seen */

static ngx_str_t
copy(const uint8_t *data, size_t size)
{
    ngx_str_t  s;

    s.len = size;
    s.data = NULL;

    if (size) {
        s.data = malloc(size);
        must(s.data != NULL);
        ngx_memcpy(s.data, data, size);
    }

    return s;
}


static void
check_error(ngx_http_iothub_hub_error_t *err, ngx_uint_t status)
{
    size_t  i;
    u_char  c;

    must(err->name.len <= NGX_HTTP_IOTHUB_HUB_ERROR_NAME_MAX);

    for (i = 0; i < err->name.len; i++) {
        c = err->name.data[i];

        must((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
             || (c >= 'a' && c <= 'z') || c == '_');
    }

    must(err->code <= 999999);
    must(!err->unknown_device || status == 401);
}


/* no text makes a success of a status that is none, nor loses one */

static void
check_verdict(ngx_http_iothub_operation_e operation, ngx_uint_t status,
    ngx_http_iothub_hub_error_t *err)
{
    ngx_uint_t                        may, must_be;
    const ngx_http_iothub_verdict_t  *verdict;

    verdict = ngx_http_iothub_hub_error_classify(operation, status, err);

    must(verdict != NULL && verdict->detail != NULL);
    must(verdict->action <= NGX_HTTP_IOTHUB_ACTION_PERMANENT);
    must(verdict->result < NGX_HTTP_IOTHUB_RESULTS);

    switch (operation) {

    case NGX_HTTP_IOTHUB_OPERATION_SEND:
        must_be = status == 200 || status == 201 || status == 202
                  || status == 204;
        may = must_be;
        break;

    case NGX_HTTP_IOTHUB_OPERATION_CREATE:
        must_be = status / 100 == 2 || status == 412;
        may = must_be || status == 409;
        break;

    default:
        must_be = status == 200;
        may = must_be;
        break;
    }

    if (verdict->action == NGX_HTTP_IOTHUB_ACTION_DONE) {
        must(may);
        must((operation == NGX_HTTP_IOTHUB_OPERATION_SEND)
             == (verdict->result == NGX_HTTP_IOTHUB_DELIVERED));
        return;
    }

    must(!must_be);
    must(verdict->result != NGX_HTTP_IOTHUB_NO_RESULT);
    must(!ngx_http_iothub_results[verdict->result].success);

    /* an identity is created only where one is said to be missing */

    if (verdict->action == NGX_HTTP_IOTHUB_ACTION_CREATE) {
        must(operation != NGX_HTTP_IOTHUB_OPERATION_CREATE);
        must(status == 404 || status == 401
             || (status == 204
                 && operation == NGX_HTTP_IOTHUB_OPERATION_ASK));
    }

    if (verdict->action == NGX_HTTP_IOTHUB_ACTION_DISABLED) {
        must(status == 403);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_str_t                         header, body;
    ngx_uint_t                        i, status;
    const uint8_t                    *p, *last, *lf;
    ngx_http_iothub_hub_error_t       err;
    ngx_http_iothub_device_status_e   device;

    static const ngx_http_iothub_operation_e  operations[] = {
        NGX_HTTP_IOTHUB_OPERATION_SEND,
        NGX_HTTP_IOTHUB_OPERATION_CREATE,
        NGX_HTTP_IOTHUB_OPERATION_ASK
    };

    p = data;
    last = data + size;
    status = 0;

    while (p < last && p < data + 6 && *p >= '0' && *p <= '9') {
        status = status * 10 + (*p++ - '0');
    }

    if (p < last && *p == ' ') {
        p++;
    }

    lf = memchr(p, '\n', last - p);

    header = copy(p, (lf ? lf : last) - p);
    body = copy(lf ? lf + 1 : last, lf ? last - (lf + 1) : 0);

    ngx_http_iothub_hub_error_parse(status, &header, &body, &err);
    check_error(&err, status);

    for (i = 0; i < 3; i++) {
        check_verdict(operations[i], status, &err);
    }

    device = ngx_http_iothub_hub_error_device_status(&body);
    must(device <= NGX_HTTP_IOTHUB_DEVICE_DISABLED);

    if (device != NGX_HTTP_IOTHUB_DEVICE_UNKNOWN) {
        must(memchr(body.data, '{', body.len) != NULL);
    }

    must(ngx_http_iothub_hub_error_retry_after(&header, 1000000000)
         <= 86400);

    free(header.data);
    free(body.data);

    return 0;
}
