
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * event: fields -> event -> message.
 *
 * Checks an event's fields by the hub's rules and makes of them the parts of
 * a message: its body, message id and creation time.
 *
 * Pure: bytes in, values out; it logs nothing and keeps nothing.  Texts are
 * valid UTF-8, not NUL-terminated, and may hold control characters unless
 * checked here.  A reason given back is a constant text without any byte of
 * the event.
 */


#ifndef _NGX_HTTP_IOTHUB_EVENT_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_EVENT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_webhook.h"


/* characters of a device id, of a message id, of a property's name */
#define NGX_HTTP_IOTHUB_EVENT_ID_MAX       128

/* hexadecimal digits of a message id that was made here, at most */
#define NGX_HTTP_IOTHUB_EVENT_HASH_LEN     64

/* YYYY-MM-DDTHH:MM:SS.mmmZ */
#define NGX_HTTP_IOTHUB_EVENT_TIME_LEN     24

/* bytes of a message: its body, all values, and application names */
#define NGX_HTTP_IOTHUB_EVENT_MESSAGE_MAX  262144

/* less is copied sooner than it is sent by itself, bytes */

#define NGX_HTTP_IOTHUB_EVENT_SLICE        4096


/*
 * What one webhook reports of one device.  A text whose data pointer is NULL
 * was not sent; an empty text was sent empty.  Of message_id both mean that
 * there is none.
 */

typedef struct {
    ngx_str_t                device_id;
    ngx_str_t                name;
    ngx_str_t                published_at;  /* as the sender wrote it */
    ngx_str_t                message_id;    /* as the sender wrote it */
    ngx_http_iothub_value_t  data;
    ngx_http_iothub_value_t  fw_version;
    ngx_str_t                time;          /* see event_set_time() */
    unsigned                 has_data:1;
    unsigned                 has_fw_version:1;
    unsigned                 subsecond:1;
} ngx_http_iothub_event_t;


/*
 * May this be a device id?  1 to 128 of A-Z a-z 0-9 - : . + % _ # * ? ! ( )
 * , = @ ; $ ' as the hub's SDKs check it.  "." and "..", which the hub would
 * allow, are refused, as a path that holds them means another one.
 * Returns 1, or 0 and *reason.
 */

ngx_uint_t ngx_http_iothub_event_device_id_valid(ngx_str_t *id,
    const char **reason);

/* Is a byte below 0x20, or 0x7f, in the text?  1 or 0. */

ngx_uint_t ngx_http_iothub_event_has_controls(ngx_str_t *text);

/*
 * Normalises a time to YYYY-MM-DDTHH:MM:SS.mmmZ in UTC.
 *
 * Read are:
 *   - ISO 8601: YYYY-MM-DD, then T, t or a blank, then HH:MM or HH:MM:SS,
 *     or the same without any - and : ; a fraction of the seconds of any
 *     precision after a dot or a comma, cut to milliseconds; then the zone,
 *     perhaps after a blank: Z, z, +HH:MM, +HHMM, +HH, or - instead of +.
 *     A blank in place of + is a + that the decoding of a form has taken.
 *     A time without a zone is UTC: senders that leave it out are cloud
 *     services, which write UTC.  Second 60 is read where leap seconds are,
 *     at the end of a UTC day, and becomes the next second.
 *   - seconds since 1970, 1 to 12 digits, with or without a fraction;
 *   - milliseconds since 1970, 13 digits; a fraction is cut.
 *
 * The day must exist, and the years are 1970 to 9999 in UTC.  A date
 * without a time is no time.
 *
 * out->data is a buffer of NGX_HTTP_IOTHUB_EVENT_TIME_LEN bytes; out->len
 * is set.  *subsecond is 1 if the text says more than whole seconds: has
 * digits of a fraction, zeros too, or is in milliseconds.
 *
 * NGX_OK; NGX_DECLINED if the text is no time, and then out->len and
 * *subsecond are 0.
 */

ngx_int_t ngx_http_iothub_event_time(ngx_str_t *text, ngx_str_t *out,
    ngx_uint_t *subsecond);

/*
 * Sets ev->time to the normalised published_at, in the pool, or to nothing
 * if that is no time, and ev->subsecond.  NGX_OK or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_event_set_time(ngx_pool_t *pool,
    ngx_http_iothub_event_t *ev);

/*
 * The id of the event's message, always 1 to 128 characters that the hub
 * takes.  The event's time must have been set.  It is
 *   - the sender's, if the hub can take it;
 *   - else the hash of the sender's, if there is one;
 *   - else, if published_at is a time with ev->subsecond, the hash of device
 *     id, name, published_at as the sender wrote it, and data, so that what
 *     a sender repeats has the same id;
 *   - else 32 random digits.
 * A hash is ngx_http_iothub_sas_sha256() over these parts, in hexadecimal.
 * Of data, the raw bytes if it is JSON, else its text; absent data is no
 * part, which is another id than that of empty data.
 *
 * The result is in the pool, or is ev->message_id itself.  Call it once for
 * an event, and keep the id over all repeats.
 * NGX_OK or NGX_ERROR (no memory, or OpenSSL failed).
 *
 * Characters and length: "message-id" in
 * https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
 */

ngx_int_t ngx_http_iothub_event_message_id(ngx_pool_t *pool,
    ngx_http_iothub_event_t *ev, ngx_str_t *out);

/*
 * The body that Particle's own integration writes, without blanks, the
 * members in this order:
 *   {"data":...,"device_id":"...","event":"...","published_at":"..."}
 * and ,"fw_version":... if it was sent.  What was not sent is null.
 *
 * A value that is JSON goes in as the sender's own bytes, a string with the
 * sender's own escapes; any other text as a JSON string.  If data_as_json is
 * set, data that is a text which by itself is a JSON value is that value.
 *
 * If slice is not NULL and the data goes in as the sender's bytes, and these
 * are EVENT_SLICE or more, they are left out: slice is set to them and at to
 * their place in out.
 *
 * One allocation from the pool, and one more where data_as_json needs the
 * text of an escaped string.  NGX_OK or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_event_body(ngx_pool_t *pool,
    ngx_http_iothub_event_t *ev, ngx_uint_t data_as_json, ngx_str_t *out,
    ngx_str_t *slice, size_t *at);

/*
 * May this be the name of an application property?  1 to 128 characters of
 * a token (RFC 7230), as it becomes a part of a header's name, and in no
 * case a name that the hub keeps for itself or that this module sends.
 * Returns 1, or 0 and *reason.
 *
 * Reserved names: MessageProperty.java of azure-iot-sdk-java.
 */

ngx_uint_t ngx_http_iothub_event_property_name_valid(ngx_str_t *name,
    const char **reason);

/*
 * May this be the value of a property?  Visible ASCII, blanks and tabs; the
 * empty text, too.  Blanks at its ends are lost on the way.  1 or 0.
 */

ngx_uint_t ngx_http_iothub_event_property_value_valid(ngx_str_t *value);


#endif /* _NGX_HTTP_IOTHUB_EVENT_H_INCLUDED_ */
