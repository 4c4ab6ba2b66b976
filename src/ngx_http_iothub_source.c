
/* Copyright (C) the ngx_http_iothub_module authors */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_iothub_source.h"
#include "ngx_http_iothub_event.h"


#define NGX_HTTP_IOTHUB_SOURCE_PARTS     3
#define NGX_HTTP_IOTHUB_SOURCE_ELEMENTS  64


/* what of the value that a locator finds is taken */

typedef enum {
    NGX_HTTP_IOTHUB_TAKE_ALL = 0,
    NGX_HTTP_IOTHUB_TAKE_SEGMENT,   /* the last of a path, if a device id */
    NGX_HTTP_IOTHUB_TAKE_DECODED,   /* percent escapes of a header */
    NGX_HTTP_IOTHUB_TAKE_DECODED_SEGMENT,
    NGX_HTTP_IOTHUB_TAKE_CONSTANT,  /* the locator itself */
    NGX_HTTP_IOTHUB_TAKE_AS,        /* first of the elements that begins so */
    NGX_HTTP_IOTHUB_TAKE_UPLINK,    /* first of the members below */
    NGX_HTTP_IOTHUB_TAKE_UPLINK_NAME
} ngx_http_iothub_take_e;


/*
 * A field is made of parts: joined by a character, or, without one, tried
 * one after the other.
 */

typedef struct {
    const char                  *locator;
    u_char                       before;
    ngx_http_iothub_take_e       take;
} ngx_http_iothub_source_part_t;


typedef struct ngx_http_iothub_source_row_s {
    ngx_http_iothub_source_t       preset;

    /* if there is this header, another row tells the fields */
    const char                    *header;

    ngx_http_iothub_source_part_t  fields[NGX_HTTP_IOTHUB_FIELDS]
                                         [NGX_HTTP_IOTHUB_SOURCE_PARTS];
    ngx_http_iothub_source_part_t  by_header[NGX_HTTP_IOTHUB_FIELDS]
                                            [NGX_HTTP_IOTHUB_SOURCE_PARTS];
} ngx_http_iothub_source_row_t;


/* a part that is ready for lookups */

typedef struct {
    ngx_http_iothub_locator_t    locator;
    u_char                       before;
    ngx_http_iothub_take_e       take;
    ngx_str_t                    text;
} ngx_http_iothub_source_ready_t;


static const ngx_http_iothub_source_row_t *ngx_http_iothub_source_row(
    ngx_str_t *name);
static ngx_int_t ngx_http_iothub_source_ready(ngx_pool_t *pool,
    ngx_array_t *ready, const ngx_http_iothub_source_part_t *part);
static ngx_int_t ngx_http_iothub_source_part(
    ngx_http_iothub_source_ready_t *part, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_source_locate(
    ngx_http_iothub_source_ready_t *part, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_source_as(
    ngx_http_iothub_source_ready_t *part, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_source_uplink(
    ngx_http_iothub_source_ready_t *part, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_source_segment(
    ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_source_decode(ngx_pool_t *pool,
    ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_source_join(ngx_pool_t *pool,
    ngx_http_iothub_value_t *value, u_char before,
    ngx_http_iothub_value_t *more);
static void ngx_http_iothub_source_string(ngx_http_iothub_value_t *value,
    u_char *data, size_t len);


#define ngx_http_iothub_at(locator)                                           \
    { locator, 0, NGX_HTTP_IOTHUB_TAKE_ALL }
#define ngx_http_iothub_join(before, locator)                                 \
    { locator, before, NGX_HTTP_IOTHUB_TAKE_ALL }
#define ngx_http_iothub_take(what, locator)                                   \
    { locator, 0, NGX_HTTP_IOTHUB_TAKE_ ## what }


const char  ngx_http_iothub_source_names[] =
    "\"particle\", \"the-things-stack\", \"chirpstack\", \"sigfox\", "
    "\"notehub\", \"cloudevents\", \"eventgrid\", \"device-bridge\", "
    "or \"custom\"";


/*
 * Where the fields lie: device id, event, data, time, message id, firmware
 * version.
 */

static const ngx_http_iothub_source_row_t
    ngx_http_iothub_source_rows[NGX_HTTP_IOTHUB_SOURCES] =
{

    { { ngx_string("particle"),
        NGX_HTTP_POST|NGX_HTTP_PUT|NGX_HTTP_GET,
        ngx_string("POST, PUT, GET"),
        15000, 20000, 100 * 1024, NGX_HTTP_IOTHUB_SOURCE_PARTICLE, 0,
        NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_at("coreid") },
        { ngx_http_iothub_at("event") },
        { ngx_http_iothub_at("data") },
        { ngx_http_iothub_at("published_at") },
        { ngx_http_iothub_at("event_id") },
        { ngx_http_iothub_at("fw_version") } },
      { { { NULL, 0, 0 } } } },

    /* https://www.thethingsindustries.com/docs/integrations/data-formats/ */

    { { ngx_string("the-things-stack"), NGX_HTTP_POST, ngx_string("POST"),
        4000, 5000, 0, 0, 0, NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_at("/end_device_ids/application_ids/application_id"),
          ngx_http_iothub_join('.', "/end_device_ids/device_id") },
        { ngx_http_iothub_take(UPLINK_NAME, "body") },
        { ngx_http_iothub_take(UPLINK, "body") },
        { ngx_http_iothub_at("/received_at") },
        { ngx_http_iothub_take(AS, "/correlation_ids") },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },

    /* https://www.chirpstack.io/docs/chirpstack/integrations/events.html */

    { { ngx_string("chirpstack"), NGX_HTTP_POST, ngx_string("POST"),
        4000, 5000, 0, 0, 0, NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_at("/deviceInfo/devEui") },
        { ngx_http_iothub_at("query:event") },
        { ngx_http_iothub_at("body") },
        { ngx_http_iothub_at("/time") },
        { ngx_http_iothub_at("/deduplicationId"),
          ngx_http_iothub_join('-', "query:event") },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },

    /* https://support.sigfox.com/docs/callbacks-documentation */

    { { ngx_string("sigfox"), NGX_HTTP_POST|NGX_HTTP_GET,
        ngx_string("POST, GET"),
        8000, 10000, 0, 0, 0, NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_at("device") },
        { ngx_http_iothub_at("event"),
          ngx_http_iothub_take(CONSTANT, "data") },
        { ngx_http_iothub_at("data") },
        { ngx_http_iothub_at("time") },
        { ngx_http_iothub_at("device"),
          ngx_http_iothub_join('-', "time"),
          ngx_http_iothub_join('-', "seqNumber") },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },

    /* https://dev.blues.io/api-reference/notehub-api/event-api/ */

    { { ngx_string("notehub"), NGX_HTTP_POST, ngx_string("POST"),
        8000, 0, 0, 0, 0, NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_at("/device") },
        { ngx_http_iothub_at("/file") },
        { ngx_http_iothub_at("/body"), ngx_http_iothub_at("/payload") },
        { ngx_http_iothub_at("/when") },
        { ngx_http_iothub_at("/event") },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },

    /*
     * Structured mode, and binary mode, which has the attributes in headers.
     * https://github.com/cloudevents/spec, http-protocol-binding.md
     */

    { { ngx_string("cloudevents"), NGX_HTTP_POST|NGX_HTTP_OPTIONS,
        ngx_string("POST, OPTIONS"),
        15000, 0, 0,
        NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE|NGX_HTTP_IOTHUB_SOURCE_ENVELOPE
        |NGX_HTTP_IOTHUB_SOURCE_ARRAY, 0,
        NULL, 0, NULL, NULL },
      "ce-specversion",
      { { ngx_http_iothub_take(SEGMENT, "/source"),
          ngx_http_iothub_take(SEGMENT, "/subject") },
        { ngx_http_iothub_at("/type") },
        { ngx_http_iothub_at("/data"), ngx_http_iothub_at("/data_base64") },
        { ngx_http_iothub_at("/time") },
        { ngx_http_iothub_at("/source"), ngx_http_iothub_join('-', "/id") },
        { { NULL, 0, 0 } } },
      { { ngx_http_iothub_take(DECODED_SEGMENT, "header:ce-source"),
          ngx_http_iothub_take(DECODED_SEGMENT, "header:ce-subject") },
        { ngx_http_iothub_take(DECODED, "header:ce-type") },
        { ngx_http_iothub_at("body") },
        { ngx_http_iothub_at("header:ce-time") },
        { ngx_http_iothub_take(DECODED, "header:ce-source"),
          ngx_http_iothub_join('-', "header:ce-id") },
        { { NULL, 0, 0 } } } },

    /* https://learn.microsoft.com/azure/event-grid/event-schema */

    { { ngx_string("eventgrid"), NGX_HTTP_POST|NGX_HTTP_OPTIONS,
        ngx_string("POST, OPTIONS"),
        25000, 30000, 0,
        NGX_HTTP_IOTHUB_SOURCE_ARRAY|NGX_HTTP_IOTHUB_SOURCE_VALIDATION,
        NGX_HTTP_BAD_REQUEST, NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_take(SEGMENT, "/subject") },
        { ngx_http_iothub_at("/eventType") },
        { ngx_http_iothub_at("/data") },
        { ngx_http_iothub_at("/eventTime") },
        { ngx_http_iothub_at("/id") },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },

    /* https://github.com/Azure/iotc-device-bridge */

    { { ngx_string("device-bridge"), NGX_HTTP_POST, ngx_string("POST"),
        15000, 0, 0, 0, 0, NULL, 0, NULL, NULL },
      NULL,
      { { ngx_http_iothub_at("/device/deviceId") },
        { { NULL, 0, 0 } },
        { ngx_http_iothub_at("/measurements") },
        { ngx_http_iothub_at("/timestamp") },
        { { NULL, 0, 0 } },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },

    { { ngx_string("custom"), NGX_HTTP_POST|NGX_HTTP_PUT,
        ngx_string("POST, PUT"),
        15000, 0, 0, NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE, 0, NULL, 0, NULL, NULL },
      NULL,
      { { { NULL, 0, 0 } },
        { { NULL, 0, 0 } },
        { ngx_http_iothub_at("body") },
        { { NULL, 0, 0 } },
        { { NULL, 0, 0 } },
        { { NULL, 0, 0 } } },
      { { { NULL, 0, 0 } } } },
};


/* what a message of The Things Stack may be, one of them in each webhook */

static ngx_str_t  ngx_http_iothub_source_uplinks[] = {
    ngx_string("uplink_message"),
    ngx_string("uplink_normalized"),
    ngx_string("join_accept"),
    ngx_string("downlink_ack"),
    ngx_string("downlink_nack"),
    ngx_string("downlink_sent"),
    ngx_string("downlink_failed"),
    ngx_string("downlink_queued"),
    ngx_string("downlink_queue_invalidated"),
    ngx_string("location_solved"),
    ngx_string("service_data"),
    ngx_null_string
};


static const ngx_http_iothub_source_row_t *
ngx_http_iothub_source_row(ngx_str_t *name)
{
    ngx_uint_t                           i;
    const ngx_http_iothub_source_row_t  *row;

    for (i = 0; i < NGX_HTTP_IOTHUB_SOURCES; i++) {
        row = &ngx_http_iothub_source_rows[i];

        if (row->preset.name.len == name->len
            && ngx_strncmp(row->preset.name.data, name->data, name->len) == 0)
        {
            return row;
        }
    }

    return NULL;
}


const ngx_str_t *
ngx_http_iothub_source_name(ngx_uint_t n)
{
    return &ngx_http_iothub_source_rows[n].preset.name;
}


ngx_http_iothub_source_t *
ngx_http_iothub_source_get(ngx_pool_t *pool, ngx_str_t *name)
{
    ngx_uint_t                           i, n, field, part;
    ngx_http_iothub_source_t            *source;
    const ngx_http_iothub_source_row_t  *row;

    row = ngx_http_iothub_source_row(name);
    if (row == NULL) {
        return NULL;
    }

    source = ngx_palloc(pool, sizeof(ngx_http_iothub_source_t));
    if (source == NULL) {
        return NULL;
    }

    *source = row->preset;
    source->row = row;
    source->n = row - ngx_http_iothub_source_rows;

    if (source->flags & NGX_HTTP_IOTHUB_SOURCE_ARRAY) {

        /* the root: a pointer without steps */

        source->each = ngx_pcalloc(pool, sizeof(ngx_http_iothub_locator_t));
        if (source->each == NULL) {
            return NULL;
        }

        source->each->kind = NGX_HTTP_IOTHUB_LOCATOR_JSON;
    }

    /* those of the row, then those by a header */

    n = 2 * NGX_HTTP_IOTHUB_FIELDS;

    source->parts = ngx_pcalloc(pool, n * sizeof(ngx_array_t));
    if (source->parts == NULL) {
        return NULL;
    }

    for (field = 0; field < n; field++) {

        if (ngx_array_init(&source->parts[field], pool,
                           NGX_HTTP_IOTHUB_SOURCE_PARTS,
                           sizeof(ngx_http_iothub_source_ready_t))
            != NGX_OK)
        {
            return NULL;
        }

        for (part = 0; part < NGX_HTTP_IOTHUB_SOURCE_PARTS; part++) {

            i = field % NGX_HTTP_IOTHUB_FIELDS;

            if (ngx_http_iothub_source_ready(pool, &source->parts[field],
                                       field < NGX_HTTP_IOTHUB_FIELDS
                                           ? &row->fields[i][part]
                                           : &row->by_header[i][part])
                != NGX_OK)
            {
                return NULL;
            }
        }
    }

    return source;
}


static ngx_int_t
ngx_http_iothub_source_ready(ngx_pool_t *pool, ngx_array_t *ready,
    const ngx_http_iothub_source_part_t *part)
{
    const char                      *reason;
    ngx_http_iothub_source_ready_t  *p;

    if (part->locator == NULL) {
        return NGX_OK;
    }

    p = ngx_array_push(ready);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p->before = part->before;
    p->take = part->take;
    p->text.data = (u_char *) part->locator;
    p->text.len = ngx_strlen(part->locator);

    return ngx_http_iothub_locator_read(pool, &p->text, &p->locator,
                                        &reason);
}


ngx_uint_t
ngx_http_iothub_source_has(ngx_http_iothub_source_t *source,
    ngx_http_iothub_field_e field)
{
    return source->parts[field].nelts != 0;
}


ngx_uint_t
ngx_http_iothub_source_by_header(ngx_http_iothub_source_t *source,
    ngx_http_iothub_webhook_t *wh)
{
    ngx_str_t  name;

    if (source->row->header == NULL || wh->header == NULL) {
        return 0;
    }

    name.data = (u_char *) source->row->header;
    name.len = ngx_strlen(source->row->header);

    return wh->header(wh->header_data, &name) != NULL;
}


ngx_int_t
ngx_http_iothub_source_find(ngx_http_iothub_source_t *source,
    ngx_http_iothub_field_e field, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_value_t *value)
{
    ngx_int_t                        rc;
    ngx_uint_t                       i;
    ngx_array_t                     *parts;
    ngx_http_iothub_value_t          more;
    ngx_http_iothub_source_ready_t  *part;

    parts = &source->parts[field];

    if (ngx_http_iothub_source_by_header(source, wh)) {
        parts = &source->parts[NGX_HTTP_IOTHUB_FIELDS + field];
    }

    part = parts->elts;
    rc = NGX_DECLINED;

    for (i = 0; i < parts->nelts; i++) {

        if (i && !part[i].before) {

            /* an alternative */

            if (rc == NGX_OK) {
                return NGX_OK;
            }

        } else if (i && rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_iothub_source_part(&part[i], wh,
                                         part[i].before ? &more : value);

        if (rc == NGX_OK && part[i].before) {
            rc = ngx_http_iothub_source_join(wh->pool, value, part[i].before,
                                             &more);
        }

        if (rc != NGX_OK && rc != NGX_DECLINED) {
            return rc;
        }
    }

    return rc;
}


static ngx_int_t
ngx_http_iothub_source_part(ngx_http_iothub_source_ready_t *part,
    ngx_http_iothub_webhook_t *wh, ngx_http_iothub_value_t *value)
{
    ngx_int_t  rc;

    switch (part->take) {

    case NGX_HTTP_IOTHUB_TAKE_CONSTANT:
        ngx_http_iothub_source_string(value, part->text.data,
                                      part->text.len);
        return NGX_OK;

    case NGX_HTTP_IOTHUB_TAKE_AS:
        return ngx_http_iothub_source_as(part, wh, value);

    case NGX_HTTP_IOTHUB_TAKE_UPLINK:
    case NGX_HTTP_IOTHUB_TAKE_UPLINK_NAME:
        return ngx_http_iothub_source_uplink(part, wh, value);

    default:
        break;
    }

    rc = ngx_http_iothub_source_locate(part, wh, value);

    if (rc != NGX_OK) {
        return rc;
    }

    if (value->json && value->type == NGX_HTTP_IOTHUB_NULL) {
        return NGX_DECLINED;
    }

    if (part->take == NGX_HTTP_IOTHUB_TAKE_ALL) {
        return NGX_OK;
    }

    if (ngx_http_iothub_webhook_text(wh->pool, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (part->take != NGX_HTTP_IOTHUB_TAKE_SEGMENT
        && ngx_http_iothub_source_decode(wh->pool, value) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (part->take == NGX_HTTP_IOTHUB_TAKE_DECODED) {
        return NGX_OK;
    }

    return ngx_http_iothub_source_segment(value);
}


/* of an element, its body is the element */

static ngx_int_t
ngx_http_iothub_source_locate(ngx_http_iothub_source_ready_t *part,
    ngx_http_iothub_webhook_t *wh, ngx_http_iothub_value_t *value)
{
    ngx_http_iothub_locator_t  root;

    if (!wh->element || part->locator.kind != NGX_HTTP_IOTHUB_LOCATOR_BODY) {
        return ngx_http_iothub_webhook_find_raw(wh, &part->locator, value);
    }

    ngx_memzero(&root, sizeof(ngx_http_iothub_locator_t));
    root.kind = NGX_HTTP_IOTHUB_LOCATOR_JSON;

    return ngx_http_iothub_webhook_find_raw(wh, &root, value);
}


/* "as:up:01E0WZGT6Y7657CPFPE5WEYDSQ" among the correlation ids */

static ngx_int_t
ngx_http_iothub_source_as(ngx_http_iothub_source_ready_t *part,
    ngx_http_iothub_webhook_t *wh, ngx_http_iothub_value_t *value)
{
    ngx_int_t                  i, rc;
    ngx_http_iothub_step_t     steps[2];
    ngx_http_iothub_locator_t  locator;

    locator = part->locator;
    steps[0] = locator.steps[0];
    steps[1].name.data = NULL;
    steps[1].name.len = 0;
    locator.steps = steps;
    locator.nsteps = 2;

    for (i = 0; i < NGX_HTTP_IOTHUB_SOURCE_ELEMENTS; i++) {
        steps[1].index = i;

        rc = ngx_http_iothub_webhook_find(wh, &locator, value);

        if (rc != NGX_OK) {
            return rc;
        }

        if (value->type == NGX_HTTP_IOTHUB_STRING
            && value->text.len > 3
            && ngx_strncmp(value->text.data, "as:", 3) == 0)
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_iothub_source_uplink(ngx_http_iothub_source_ready_t *part,
    ngx_http_iothub_webhook_t *wh, ngx_http_iothub_value_t *value)
{
    ngx_str_t                  *name;
    ngx_http_iothub_step_t      step;
    ngx_http_iothub_locator_t   locator;

    ngx_memzero(&locator, sizeof(ngx_http_iothub_locator_t));
    locator.kind = NGX_HTTP_IOTHUB_LOCATOR_JSON;
    locator.steps = &step;
    locator.nsteps = 1;
    step.index = -1;

    for (name = ngx_http_iothub_source_uplinks; name->len; name++) {
        step.name = *name;

        if (ngx_http_iothub_webhook_find_raw(wh, &locator, value) != NGX_OK) {
            continue;
        }

        if (part->take == NGX_HTTP_IOTHUB_TAKE_UPLINK_NAME) {
            ngx_http_iothub_source_string(value, name->data, name->len);
        }

        return NGX_OK;
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_iothub_source_segment(ngx_http_iothub_value_t *value)
{
    size_t       i;
    ngx_str_t    segment;
    const char  *reason;

    segment = value->text;

    for (i = segment.len; i > 0; i--) {
        if (segment.data[i - 1] == '/') {
            break;
        }
    }

    segment.data += i;
    segment.len -= i;

    if (!ngx_http_iothub_event_device_id_valid(&segment, &reason)) {
        return NGX_DECLINED;
    }

    ngx_http_iothub_source_string(value, segment.data, segment.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_source_decode(ngx_pool_t *pool,
    ngx_http_iothub_value_t *value)
{
    u_char  *p, *src, *dst;

    p = ngx_pnalloc(pool, value->text.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    src = value->text.data;
    dst = p;

    ngx_unescape_uri(&dst, &src, value->text.len, 0);
    ngx_http_iothub_source_string(value, p, dst - p);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_source_join(ngx_pool_t *pool,
    ngx_http_iothub_value_t *value, u_char before,
    ngx_http_iothub_value_t *more)
{
    u_char  *p;

    if (ngx_http_iothub_webhook_text(pool, value) != NGX_OK
        || ngx_http_iothub_webhook_text(pool, more) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (value->text.len == 0 || more->text.len == 0) {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(pool, value->text.len + 1 + more->text.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(p, "%V%c%V", &value->text, before, &more->text);

    ngx_http_iothub_source_string(value, p,
                                  value->text.len + 1 + more->text.len);

    return NGX_OK;
}


static void
ngx_http_iothub_source_string(ngx_http_iothub_value_t *value, u_char *data,
    size_t len)
{
    ngx_memzero(value, sizeof(ngx_http_iothub_value_t));

    value->type = NGX_HTTP_IOTHUB_STRING;
    value->text.data = data;
    value->text.len = len;
    value->raw = value->text;
}
