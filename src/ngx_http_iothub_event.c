
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_event.h"
#include "ngx_http_iothub_plain.h"
#include "ngx_http_iothub_sas.h"


#define NGX_HTTP_IOTHUB_EVENT_RANDOM_LEN   16

#define NGX_HTTP_IOTHUB_EVENT_ID_CHAR      0x1
#define NGX_HTTP_IOTHUB_EVENT_TOKEN_CHAR   0x2

/* the number of two digits */
#define ngx_http_iothub_event_two(p)                                          \
    ((ngx_uint_t) (((p)[0] - '0') * 10 + ((p)[1] - '0')))

/* 9999-12-31T23:59:59Z */
#define NGX_HTTP_IOTHUB_EVENT_LAST_SECOND  253402300799LL


typedef struct {
    u_char      *pos;
    u_char      *last;
} ngx_http_iothub_event_reader_t;


/* a value of the body: JSON as it is, or text to be made a string */

typedef struct {
    ngx_str_t    text;
    size_t       escaped;      /* length, without quotes */
    unsigned     escape:1;
} ngx_http_iothub_event_piece_t;


static ngx_uint_t ngx_http_iothub_event_of_chars(ngx_str_t *text,
    ngx_uint_t mask);
static ngx_uint_t ngx_http_iothub_event_is_normal(ngx_str_t *text);
static ngx_int_t ngx_http_iothub_event_epoch(
    ngx_http_iothub_event_reader_t *r, ngx_uint_t digits, int64_t *sec,
    ngx_uint_t *ms, ngx_uint_t *subsecond);
static ngx_int_t ngx_http_iothub_event_iso(ngx_http_iothub_event_reader_t *r,
    int64_t *sec, ngx_uint_t *ms, ngx_uint_t *subsecond);
static ngx_int_t ngx_http_iothub_event_zone(ngx_http_iothub_event_reader_t *r,
    ngx_int_t *offset);
static ngx_int_t ngx_http_iothub_event_days(ngx_int_t year, ngx_int_t month,
    ngx_int_t day, ngx_int_t *days);
static ngx_int_t ngx_http_iothub_event_digits(
    ngx_http_iothub_event_reader_t *r, ngx_uint_t n, ngx_int_t max);
static ngx_uint_t ngx_http_iothub_event_skip(
    ngx_http_iothub_event_reader_t *r, u_char c);
static ngx_int_t ngx_http_iothub_event_fraction(
    ngx_http_iothub_event_reader_t *r, ngx_uint_t *ms,
    ngx_uint_t *subsecond);
static ngx_int_t ngx_http_iothub_event_hash(ngx_pool_t *pool,
    ngx_str_t *parts, ngx_uint_t n, ngx_str_t *out);
static ngx_int_t ngx_http_iothub_event_hex(ngx_pool_t *pool, u_char *bytes,
    size_t len, ngx_str_t *out);
static u_char *ngx_http_iothub_event_number(u_char *p, ngx_uint_t number,
    ngx_uint_t digits, u_char after);
static size_t ngx_http_iothub_event_piece_size(
    ngx_http_iothub_event_piece_t *piece);
static u_char *ngx_http_iothub_event_piece_write(u_char *p,
    ngx_http_iothub_event_piece_t *piece);
static void ngx_http_iothub_event_text(ngx_http_iothub_event_piece_t *piece,
    ngx_str_t *text);
static void ngx_http_iothub_event_value(ngx_http_iothub_event_piece_t *piece,
    ngx_uint_t has, ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_event_embed(ngx_pool_t *pool,
    ngx_http_iothub_event_piece_t *piece, ngx_http_iothub_value_t *value);


/* what each character may be part of: 1 a device or message id, 2 a token */

static const u_char  ngx_http_iothub_event_chars[256] = {

 /*  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f  */
     0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
     0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,

 /*     !  "  #  $  %  &  '  (  )  *  +  ,  -  .  /  */
     0, 3, 0, 3, 3, 3, 2, 3, 1, 1, 3, 3, 1, 3, 3, 0,

 /*  0  1  2  3  4  5  6  7  8  9  :  ;  <  =  >  ?  */
     3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 0, 1, 0, 1,

 /*  @  A  B  C  D  E  F  G  H  I  J  K  L  M  N  O  */
     1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,

 /*  P  Q  R  S  T  U  V  W  X  Y  Z  [  \  ]  ^  _  */
     3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 2, 3,

 /*  `  a  b  c  d  e  f  g  h  i  j  k  l  m  n  o  */
     2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,

 /*  p  q  r  s  t  u  v  w  x  y  z  {  |  }  ~     */
     3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 2, 0, 2, 0
};


static const ngx_int_t  ngx_http_iothub_event_month_days[] = {
    31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
};


/* the members of Particle's body, in order */

static const ngx_str_t  ngx_http_iothub_event_keys[] = {
    ngx_string("{\"data\":"),
    ngx_string(",\"device_id\":"),
    ngx_string(",\"event\":"),
    ngx_string(",\"published_at\":"),
    ngx_string(",\"fw_version\":")
};


static const ngx_str_t  ngx_http_iothub_event_reserved[] = {
    ngx_string("connectionDeviceId"),
    ngx_string("connectionModuleId"),
    ngx_string("iothub-absolute-expiry-time"),
    ngx_string("iothub-ack"),
    ngx_string("iothub-connection-auth-generation-id"),
    ngx_string("iothub-connection-auth-method"),
    ngx_string("iothub-connection-device-id"),
    ngx_string("iothub-connection-module-id"),
    ngx_string("iothub-content-encoding"),
    ngx_string("iothub-content-type"),
    ngx_string("iothub-contentencoding"),
    ngx_string("iothub-contenttype"),
    ngx_string("iothub-correlationid"),
    ngx_string("iothub-enqueuedtime"),
    ngx_string("iothub-inputname"),
    ngx_string("iothub-messageid"),
    ngx_string("iothub-messagelocktoken"),
    ngx_string("iothub-methodname"),
    ngx_string("iothub-operation"),
    ngx_string("iothub-outputname"),
    ngx_string("iothub-partition-key"),
    ngx_string("iothub-sequencenumber"),
    ngx_string("iothub-to"),
    ngx_string("iothub-userid"),

    /* the creation time, which the hub shows under the first of these */

    ngx_string("iothub-creation-time-utc"),
    ngx_string("iothub-creationtimeutc")
};


ngx_uint_t
ngx_http_iothub_event_device_id_valid(ngx_str_t *id, const char **reason)
{
    if (id->len == 0) {
        *reason = "the device id is empty";
        return 0;
    }

    if (id->len > NGX_HTTP_IOTHUB_EVENT_ID_MAX) {
        *reason = "the device id is longer than 128 characters";
        return 0;
    }

    if (!ngx_http_iothub_event_of_chars(id, NGX_HTTP_IOTHUB_EVENT_ID_CHAR)) {
        *reason = "the device id has a character that IoT Hub does not allow";
        return 0;
    }

    if (id->data[0] == '.'
        && (id->len == 1 || (id->len == 2 && id->data[1] == '.')))
    {
        *reason = "the device id is a path of dots";
        return 0;
    }

    return 1;
}


static ngx_uint_t
ngx_http_iothub_event_of_chars(ngx_str_t *text, ngx_uint_t mask)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {
        if (!(ngx_http_iothub_event_chars[text->data[i]] & mask)) {
            return 0;
        }
    }

    return 1;
}


ngx_uint_t
ngx_http_iothub_event_has_controls(ngx_str_t *text)
{
    u_char  *p, *last;

    p = text->data;
    last = p + text->len;

    for ( ;; ) {
        p = ngx_http_iothub_plain_span(p, last);

        if (p == last) {
            return 0;
        }

        if (*p < ' ' || *p == 0x7f) {
            return 1;
        }

        p++;
    }
}


ngx_int_t
ngx_http_iothub_event_time(ngx_str_t *text, ngx_str_t *out,
    ngx_uint_t *subsecond)
{
    u_char                          *p;
    int64_t                          sec;
    ngx_tm_t                         tm;
    ngx_int_t                        rc;
    ngx_uint_t                       n, ms, fine;
    ngx_http_iothub_event_reader_t   r;

    out->len = 0;
    *subsecond = 0;

    if (text->len == 0) {
        return NGX_DECLINED;
    }

    if (ngx_http_iothub_event_is_normal(text)) {
        ngx_memcpy(out->data, text->data, text->len);
        out->len = text->len;
        *subsecond = 1;

        return NGX_OK;
    }

    ms = 0;
    fine = 0;
    r.pos = text->data;
    r.last = text->data + text->len;

    for (n = 0; n < text->len; n++) {
        if (text->data[n] < '0' || text->data[n] > '9') {
            break;
        }
    }

    if (n == text->len || text->data[n] == '.' || text->data[n] == ',') {
        rc = ngx_http_iothub_event_epoch(&r, n, &sec, &ms, &fine);

    } else {
        rc = ngx_http_iothub_event_iso(&r, &sec, &ms, &fine);
    }

    if (rc != NGX_OK || r.pos != r.last
        || sec < 0 || sec > NGX_HTTP_IOTHUB_EVENT_LAST_SECOND)
    {
        return NGX_DECLINED;
    }

    ngx_gmtime((time_t) sec, &tm);

    p = out->data;
    p = ngx_http_iothub_event_number(p, tm.ngx_tm_year, 4, '-');
    p = ngx_http_iothub_event_number(p, tm.ngx_tm_mon, 2, '-');
    p = ngx_http_iothub_event_number(p, tm.ngx_tm_mday, 2, 'T');
    p = ngx_http_iothub_event_number(p, tm.ngx_tm_hour, 2, ':');
    p = ngx_http_iothub_event_number(p, tm.ngx_tm_min, 2, ':');
    p = ngx_http_iothub_event_number(p, tm.ngx_tm_sec, 2, '.');
    p = ngx_http_iothub_event_number(p, ms, 3, 'Z');

    out->len = p - out->data;
    *subsecond = fine;

    return NGX_OK;
}


/*
 * Is it a time in the very form that it is to have?  Most senders write it
 * so.  0: it may be one, but has to be read.
 */

static ngx_uint_t
ngx_http_iothub_event_is_normal(ngx_str_t *text)
{
    u_char      *p;
    uint64_t     word, want, most;
    ngx_uint_t   i, year, month, day;

    static const u_char  form[] = "0000-00-00T00:00:00.000Z";

    /* what makes a byte above 9, where a digit is, or above 0 reach 0x80 */

    static const u_char  add[] =
        "\x76\x76\x76\x76\x7f\x76\x76\x7f\x76\x76\x7f\x76\x76\x7f"
        "\x76\x76\x7f\x76\x76\x7f\x76\x76\x76\x7f";

    if (text->len != NGX_HTTP_IOTHUB_EVENT_TIME_LEN) {
        return 0;
    }

    p = text->data;

    for (i = 0; i < NGX_HTTP_IOTHUB_EVENT_TIME_LEN; i += 8) {
        ngx_memcpy(&word, &p[i], 8);
        ngx_memcpy(&want, &form[i], 8);
        ngx_memcpy(&most, &add[i], 8);

        word ^= want;

        if ((word | (word + most)) & 0x8080808080808080ULL) {
            return 0;
        }
    }

    year = (p[0] - '0') * 1000 + (p[1] - '0') * 100
           + ngx_http_iothub_event_two(&p[2]);
    month = ngx_http_iothub_event_two(&p[5]);
    day = ngx_http_iothub_event_two(&p[8]);

    /* leap days and leap seconds are left to the reader of all forms */

    return year >= 1970
           && month >= 1 && month <= 12
           && day >= 1
           && day <= (ngx_uint_t) ngx_http_iothub_event_month_days[month - 1]
           && ngx_http_iothub_event_two(&p[11]) <= 23
           && ngx_http_iothub_event_two(&p[14]) <= 59
           && ngx_http_iothub_event_two(&p[17]) <= 59;
}


/* a number of so many digits, and what is after it */

static u_char *
ngx_http_iothub_event_number(u_char *p, ngx_uint_t number, ngx_uint_t digits,
    u_char after)
{
    ngx_uint_t  i;

    for (i = digits; i > 0; i--) {
        p[i - 1] = (u_char) ('0' + number % 10);
        number /= 10;
    }

    p[digits] = after;

    return p + digits + 1;
}


ngx_int_t
ngx_http_iothub_event_set_time(ngx_pool_t *pool, ngx_http_iothub_event_t *ev)
{
    ngx_uint_t  subsecond;

    ngx_str_null(&ev->time);
    ev->subsecond = 0;

    if (ev->published_at.len == 0) {
        return NGX_OK;
    }

    ev->time.data = ngx_pnalloc(pool, NGX_HTTP_IOTHUB_EVENT_TIME_LEN);
    if (ev->time.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_http_iothub_event_time(&ev->published_at, &ev->time,
                                      &subsecond);

    ev->subsecond = subsecond;

    return NGX_OK;
}


/* the text starts with that many digits, and a dot, a comma or nothing */

static ngx_int_t
ngx_http_iothub_event_epoch(ngx_http_iothub_event_reader_t *r,
    ngx_uint_t digits, int64_t *sec, ngx_uint_t *ms, ngx_uint_t *subsecond)
{
    ngx_uint_t  i, cut;

    if (digits == 0 || digits > 13) {
        return NGX_DECLINED;
    }

    *sec = 0;

    for (i = 0; i < digits; i++) {
        *sec = *sec * 10 + (*r->pos++ - '0');
    }

    if (digits < 13) {
        return ngx_http_iothub_event_fraction(r, ms, subsecond);
    }

    *ms = *sec % 1000;
    *sec /= 1000;
    *subsecond = 1;

    return ngx_http_iothub_event_fraction(r, &cut, subsecond);
}


static ngx_int_t
ngx_http_iothub_event_iso(ngx_http_iothub_event_reader_t *r, int64_t *sec,
    ngx_uint_t *ms, ngx_uint_t *subsecond)
{
    ngx_int_t   year, month, day, hour, min, s, days, offset;
    ngx_uint_t  extended;

    year = ngx_http_iothub_event_digits(r, 4, 9999);
    extended = ngx_http_iothub_event_skip(r, '-');
    month = ngx_http_iothub_event_digits(r, 2, 12);

    if (extended && !ngx_http_iothub_event_skip(r, '-')) {
        return NGX_DECLINED;
    }

    day = ngx_http_iothub_event_digits(r, 2, 31);

    if (!ngx_http_iothub_event_skip(r, 'T')
        && !ngx_http_iothub_event_skip(r, 't')
        && !ngx_http_iothub_event_skip(r, ' '))
    {
        return NGX_DECLINED;
    }

    hour = ngx_http_iothub_event_digits(r, 2, 23);

    if (extended && !ngx_http_iothub_event_skip(r, ':')) {
        return NGX_DECLINED;
    }

    min = ngx_http_iothub_event_digits(r, 2, 59);
    s = 0;

    if (extended
        ? ngx_http_iothub_event_skip(r, ':')
        : r->pos < r->last && *r->pos >= '0' && *r->pos <= '9')
    {
        s = ngx_http_iothub_event_digits(r, 2, 60);

        if (ngx_http_iothub_event_fraction(r, ms, subsecond) != NGX_OK) {
            return NGX_DECLINED;
        }
    }

    if (year < 0 || month < 1 || day < 1 || hour < 0 || min < 0 || s < 0) {
        return NGX_DECLINED;
    }

    if (ngx_http_iothub_event_zone(r, &offset) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_http_iothub_event_days(year, month, day, &days) != NGX_OK) {
        return NGX_DECLINED;
    }

    *sec = (int64_t) days * 86400 + hour * 3600 + min * 60 + s - offset * 60;

    /* a leap second ends a day of UTC */

    if (s == 60 && *sec % 86400 != 0) {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* the offset from UTC in minutes */

static ngx_int_t
ngx_http_iothub_event_zone(ngx_http_iothub_event_reader_t *r,
    ngx_int_t *offset)
{
    ngx_int_t   hours, minutes;
    ngx_uint_t  blank, west;

    *offset = 0;

    if (r->pos == r->last) {
        return NGX_OK;
    }

    blank = ngx_http_iothub_event_skip(r, ' ');

    if (ngx_http_iothub_event_skip(r, 'Z')
        || ngx_http_iothub_event_skip(r, 'z'))
    {
        return NGX_OK;
    }

    west = ngx_http_iothub_event_skip(r, '-');

    if (!west && !ngx_http_iothub_event_skip(r, '+') && !blank) {
        return NGX_DECLINED;
    }

    hours = ngx_http_iothub_event_digits(r, 2, 23);
    minutes = 0;

    if (r->pos != r->last) {
        (void) ngx_http_iothub_event_skip(r, ':');
        minutes = ngx_http_iothub_event_digits(r, 2, 59);
    }

    if (hours < 0 || minutes < 0) {
        return NGX_DECLINED;
    }

    *offset = hours * 60 + minutes;

    if (west) {
        *offset = -*offset;
    }

    return NGX_OK;
}


/* days since 1970-01-01; of 1969 only the last can be in 1970 in UTC */

static ngx_int_t
ngx_http_iothub_event_days(ngx_int_t year, ngx_int_t month, ngx_int_t day,
    ngx_int_t *days)
{
    ngx_int_t  i, leap, last;

    leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    last = ngx_http_iothub_event_month_days[month - 1];

    if (month == 2) {
        last += leap;
    }

    if (day > last || year < 1969) {
        return NGX_DECLINED;
    }

    *days = day - 1;

    for (i = 0; i < month - 1; i++) {
        *days += ngx_http_iothub_event_month_days[i];
    }

    if (month > 2) {
        *days += leap;
    }

    /* leap days of all years before this one */

    year--;
    *days += year / 4 - year / 100 + year / 400
             - (1969 / 4 - 1969 / 100 + 1969 / 400);

    *days += (year - 1969) * 365;

    return NGX_OK;
}


/* a number of exactly n digits, at most max; NGX_ERROR if it is not there */

static ngx_int_t
ngx_http_iothub_event_digits(ngx_http_iothub_event_reader_t *r, ngx_uint_t n,
    ngx_int_t max)
{
    ngx_int_t  value;

    if ((size_t) (r->last - r->pos) < n) {
        return NGX_ERROR;
    }

    value = ngx_atoi(r->pos, n);
    r->pos += n;

    return value > max ? NGX_ERROR : value;
}


static ngx_uint_t
ngx_http_iothub_event_skip(ngx_http_iothub_event_reader_t *r, u_char c)
{
    if (r->pos == r->last || *r->pos != c) {
        return 0;
    }

    r->pos++;

    return 1;
}


/* a fraction of a second, if there is one; *ms is its first three digits */

static ngx_int_t
ngx_http_iothub_event_fraction(ngx_http_iothub_event_reader_t *r,
    ngx_uint_t *ms, ngx_uint_t *subsecond)
{
    u_char      *start;
    ngx_uint_t   scale;

    *ms = 0;

    if (!ngx_http_iothub_event_skip(r, '.')
        && !ngx_http_iothub_event_skip(r, ','))
    {
        return NGX_OK;
    }

    start = r->pos;
    scale = 100;

    while (r->pos < r->last && *r->pos >= '0' && *r->pos <= '9') {
        *ms += (*r->pos++ - '0') * scale;
        scale /= 10;
    }

    if (r->pos == start) {
        return NGX_DECLINED;
    }

    *subsecond = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_event_message_id(ngx_pool_t *pool,
    ngx_http_iothub_event_t *ev, ngx_str_t *out)
{
    u_char      bytes[NGX_HTTP_IOTHUB_EVENT_RANDOM_LEN];
    ngx_str_t   parts[4];
    ngx_uint_t  n;

    if (ev->message_id.len) {

        if (ev->message_id.len <= NGX_HTTP_IOTHUB_EVENT_ID_MAX
            && ngx_http_iothub_event_of_chars(&ev->message_id,
                                              NGX_HTTP_IOTHUB_EVENT_ID_CHAR))
        {
            *out = ev->message_id;
            return NGX_OK;
        }

        return ngx_http_iothub_event_hash(pool, &ev->message_id, 1, out);
    }

    if (ev->subsecond) {
        n = 0;
        parts[n++] = ev->device_id;
        parts[n++] = ev->name;
        parts[n++] = ev->published_at;

        if (ev->has_data) {
            parts[n++] = ev->data.json ? ev->data.raw : ev->data.text;
        }

        return ngx_http_iothub_event_hash(pool, parts, n, out);
    }

    /* ngx_random() is not enough: workers may start from one seed */

    if (ngx_http_iothub_sas_random(bytes, sizeof(bytes)) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_iothub_event_hex(pool, bytes, sizeof(bytes), out);
}


static ngx_int_t
ngx_http_iothub_event_hash(ngx_pool_t *pool, ngx_str_t *parts, ngx_uint_t n,
    ngx_str_t *out)
{
    u_char  digest[NGX_HTTP_IOTHUB_SAS_SHA256_LEN];

    if (ngx_http_iothub_sas_sha256(digest, parts, n) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_iothub_event_hex(pool, digest, sizeof(digest), out);
}


static ngx_int_t
ngx_http_iothub_event_hex(ngx_pool_t *pool, u_char *bytes, size_t len,
    ngx_str_t *out)
{
    out->data = ngx_pnalloc(pool, len * 2);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    out->len = ngx_hex_dump(out->data, bytes, len) - out->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_event_body(ngx_pool_t *pool, ngx_http_iothub_event_t *ev,
    ngx_uint_t data_as_json, ngx_str_t *out, ngx_str_t *slice, size_t *at)
{
    u_char                         *p;
    size_t                          len;
    ngx_uint_t                      i, n;
    ngx_http_iothub_event_piece_t   pieces[5];

    ngx_http_iothub_event_value(&pieces[0], ev->has_data, &ev->data);

    if (data_as_json && ev->has_data
        && ngx_http_iothub_event_embed(pool, &pieces[0], &ev->data) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (slice && !pieces[0].escape
        && pieces[0].text.len >= NGX_HTTP_IOTHUB_EVENT_SLICE)
    {
        *slice = pieces[0].text;
        *at = ngx_http_iothub_event_keys[0].len;
        pieces[0].text.len = 0;
    }

    ngx_http_iothub_event_text(&pieces[1], &ev->device_id);
    ngx_http_iothub_event_text(&pieces[2], &ev->name);
    ngx_http_iothub_event_text(&pieces[3], &ev->published_at);

    n = 4;

    if (ev->has_fw_version) {
        ngx_http_iothub_event_value(&pieces[n++], 1, &ev->fw_version);
    }

    len = sizeof("}") - 1;

    for (i = 0; i < n; i++) {
        len += ngx_http_iothub_event_keys[i].len;
        len += ngx_http_iothub_event_piece_size(&pieces[i]);
    }

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;
    out->len = len;

    for (i = 0; i < n; i++) {
        p = ngx_cpymem(p, ngx_http_iothub_event_keys[i].data,
                       ngx_http_iothub_event_keys[i].len);
        p = ngx_http_iothub_event_piece_write(p, &pieces[i]);
    }

    *p = '}';

    return NGX_OK;
}


static size_t
ngx_http_iothub_event_piece_size(ngx_http_iothub_event_piece_t *piece)
{
    if (!piece->escape) {
        piece->escaped = piece->text.len;
        return piece->escaped;
    }

    piece->escaped = ngx_http_iothub_json_escape(NULL, &piece->text);

    return piece->escaped + sizeof("\"\"") - 1;
}


static u_char *
ngx_http_iothub_event_piece_write(u_char *p,
    ngx_http_iothub_event_piece_t *piece)
{
    if (!piece->escape) {
        return ngx_cpymem(p, piece->text.data, piece->text.len);
    }

    *p++ = '"';

    if (piece->escaped == piece->text.len) {
        p = ngx_cpymem(p, piece->text.data, piece->text.len);

    } else {
        p += ngx_http_iothub_json_escape(p, &piece->text);
    }

    *p++ = '"';

    return p;
}


static void
ngx_http_iothub_event_text(ngx_http_iothub_event_piece_t *piece,
    ngx_str_t *text)
{
    if (text->data == NULL) {
        ngx_str_set(&piece->text, "null");
        piece->escape = 0;
        return;
    }

    piece->text = *text;
    piece->escape = 1;
}


static void
ngx_http_iothub_event_value(ngx_http_iothub_event_piece_t *piece,
    ngx_uint_t has, ngx_http_iothub_value_t *value)
{
    if (!has) {
        ngx_str_set(&piece->text, "null");
        piece->escape = 0;
        return;
    }

    piece->text = value->json ? value->raw : value->text;
    piece->escape = !value->json;
}


/* replaces the piece if the value is a text that is itself JSON */

static ngx_int_t
ngx_http_iothub_event_embed(ngx_pool_t *pool,
    ngx_http_iothub_event_piece_t *piece, ngx_http_iothub_value_t *value)
{
    ngx_int_t  rc;
    ngx_str_t  json;

    if (value->type != NGX_HTTP_IOTHUB_STRING) {
        return NGX_OK;
    }

    if (ngx_http_iothub_webhook_text(pool, value) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_webhook_embed(&value->text, &json);

    if (rc == NGX_OK) {
        piece->text = json;
        piece->escape = 0;
    }

    return rc == NGX_ERROR ? NGX_ERROR : NGX_OK;
}


ngx_uint_t
ngx_http_iothub_event_property_name_valid(ngx_str_t *name,
    const char **reason)
{
    ngx_uint_t        i, n;
    const ngx_str_t  *reserved;

    if (name->len == 0) {
        *reason = "the property name is empty";
        return 0;
    }

    if (name->len > NGX_HTTP_IOTHUB_EVENT_ID_MAX) {
        *reason = "the property name is longer than 128 characters";
        return 0;
    }

    if (!ngx_http_iothub_event_of_chars(name,
                                        NGX_HTTP_IOTHUB_EVENT_TOKEN_CHAR))
    {
        *reason = "the property name may hold only letters, digits and "
                  "! # $ % & ' * + - . ^ _ ` | ~";
        return 0;
    }

    n = sizeof(ngx_http_iothub_event_reserved) / sizeof(ngx_str_t);

    for (i = 0; i < n; i++) {
        reserved = &ngx_http_iothub_event_reserved[i];

        if (name->len == reserved->len
            && ngx_strncasecmp(name->data, reserved->data, name->len) == 0)
        {
            *reason = "the property name is reserved by IoT Hub";
            return 0;
        }
    }

    return 1;
}


ngx_uint_t
ngx_http_iothub_event_property_value_valid(ngx_str_t *value)
{
    u_char  *p, *last;

    p = value->data;
    last = p + value->len;

    for ( ;; ) {
        p = ngx_http_iothub_plain_span(p, last);

        if (p == last) {
            return 1;
        }

        if ((*p < ' ' && *p != '\t') || *p > '~') {
            return 0;
        }

        p++;
    }
}
