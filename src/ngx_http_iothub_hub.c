
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_hub.h"
#include "ngx_http_iothub_hub_identity.h"
#include "ngx_http_iothub_hub_token.h"
#include "ngx_http_iothub_key_file.h"
#include "ngx_http_iothub_module.h"
#include "ngx_http_iothub_sas.h"
#include "ngx_http_iothub_server.h"
#include "ngx_http_iothub_zone.h"


#define NGX_HTTP_IOTHUB_ZONE_SIZE       (8 * 1024 * 1024)
#define NGX_HTTP_IOTHUB_TOKEN_LIFETIME  3600
#define NGX_HTTP_IOTHUB_TOKEN_MIN       60
#define NGX_HTTP_IOTHUB_RATE            1333         /* 80 a minute */
#define NGX_HTTP_IOTHUB_RATE_MAX        1000000      /* a second */
#define NGX_HTTP_IOTHUB_BURST           20
#define NGX_HTTP_IOTHUB_NAME_MAX        128
#define NGX_HTTP_IOTHUB_BUFFER_MIN      1024


typedef char *(*ngx_http_iothub_hub_set_pt)(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);


static ngx_http_iothub_hub_t *ngx_http_iothub_hub_create(ngx_conf_t *cf,
    ngx_array_t *hubs, ngx_str_t *name);
static char *ngx_http_iothub_hub_directive(ngx_conf_t *cf,
    ngx_command_t *dummy, void *conf);
static ngx_int_t ngx_http_iothub_hub_order(ngx_str_t *one, ngx_str_t *two);
static char *ngx_http_iothub_hub_complete(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static ngx_int_t ngx_http_iothub_hub_proxy(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_connection(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static ngx_int_t ngx_http_iothub_hub_keys(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_hostname(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_device_hostname(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_set_host(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_iothub_endpoint_t *endpoint);
static char *ngx_http_iothub_hub_address(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_tls(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_policy(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_key_file(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_connection_string_file(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_token_lifetime(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_token_scope(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_api_version(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_register(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_register_parameter(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_str_t *value);
static ngx_int_t ngx_http_iothub_hub_rate(ngx_str_t *value,
    ngx_uint_t *rate);
static char *ngx_http_iothub_hub_zone(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_state_file(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static char *ngx_http_iothub_hub_state_folder(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);


/* a directive stands once in a block; its bit says that it was seen */

static const struct {
    ngx_str_t                   name;
    ngx_uint_t                  min;
    ngx_uint_t                  max;
    const char                 *usage;
    ngx_http_iothub_hub_set_pt  set;
} ngx_http_iothub_hub_directives[] = {

    { ngx_string("hostname"), 1, 1, "HOST[:PORT]",
      ngx_http_iothub_hub_hostname },
    { ngx_string("device_hostname"), 1, 1, "HOST[:PORT]",
      ngx_http_iothub_hub_device_hostname },
    { ngx_string("address"), 1, 1, "HOST:PORT",
      ngx_http_iothub_hub_address },
    { ngx_string("tls"), 1, 1, "on|off",
      ngx_http_iothub_hub_tls },
    { ngx_string("policy"), 1, 1, "NAME",
      ngx_http_iothub_hub_policy },
    { ngx_string("key_file"), 1, 1, "FILE",
      ngx_http_iothub_hub_key_file },
    { ngx_string("connection_string_file"), 1, 1, "FILE",
      ngx_http_iothub_hub_connection_string_file },
    { ngx_string("token_lifetime"), 1, 1, "TIME",
      ngx_http_iothub_hub_token_lifetime },
    { ngx_string("token_scope"), 1, 1, "hub|device",
      ngx_http_iothub_hub_token_scope },
    { ngx_string("api_version"), 1, 1, "VERSION",
      ngx_http_iothub_hub_api_version },
    { ngx_string("register"), 1, 3, "missing|first|off [rate=80r/m] [burst=20]",
      ngx_http_iothub_hub_register },
    { ngx_string("identity"), 1, 1, "'JSON-OBJECT'",
      ngx_http_iothub_hub_identity },
    { ngx_string("zone"), 1, 2, "SIZE [state=FILE]",
      ngx_http_iothub_hub_zone },

    { ngx_null_string, 0, 0, NULL, NULL }
};


typedef struct {
    ngx_http_iothub_hub_t  *hub;
    ngx_uint_t              seen;
} ngx_http_iothub_block_t;


static char  ngx_http_iothub_hub_twofold[] =
    "is one too many: write either \"connection_string_file\", or "
    "\"hostname\", \"policy\" and \"key_file\"";


char *
ngx_http_iothub_hub_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_iothub_main_conf_t *imcf = conf;

    char                     *rv;
    ngx_str_t                *value;
    ngx_uint_t                i;
    ngx_conf_t                saved;
    ngx_http_iothub_hub_t    *hub, **hubp;
    ngx_http_iothub_block_t   block;

    value = cf->args->elts;

    if (value[1].len == 0 || value[1].len > NGX_HTTP_IOTHUB_NAME_MAX) {
        return "needs a name of 1 to 128 characters";
    }

    if (!ngx_http_iothub_hub_name_valid(&value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid hub name \"%V\": use letters, digits, "
                           "\".\", \"_\" and \"-\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    /* upstreams are named after hubs, and their names have no case */

    hubp = imcf->hubs.elts;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        hub = hubp[i];

        if (hub->name.len == value[1].len
            && ngx_strncasecmp(hub->name.data, value[1].data, value[1].len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate hub \"%V\", it is declared in "
                               "%s:%ui", &hub->name, hub->file, hub->line);
            return NGX_CONF_ERROR;
        }
    }

    hub = ngx_http_iothub_hub_create(cf, &imcf->hubs, &value[1]);

    if (hub == NULL
        || ngx_http_iothub_server_create(cf, hub) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    block.hub = hub;
    block.seen = 0;

    saved = *cf;
    cf->handler = ngx_http_iothub_hub_directive;
    cf->handler_conf = (void *) &block;

    rv = ngx_conf_parse(cf, NULL);

    *cf = saved;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_iothub_hub_complete(cf, hub);
}


static ngx_http_iothub_hub_t *
ngx_http_iothub_hub_create(ngx_conf_t *cf, ngx_array_t *hubs, ngx_str_t *name)
{
    ngx_uint_t              i;
    ngx_http_iothub_hub_t  *hub, **hubp;

    hub = ngx_pcalloc(cf->pool, sizeof(ngx_http_iothub_hub_t));
    if (hub == NULL) {
        return NULL;
    }

    hub->name = *name;
    hub->file = cf->conf_file->file.name.data;
    hub->line = cf->conf_file->line;
    hub->tls = 1;
    hub->verify = 1;
    hub->token_lifetime = NGX_HTTP_IOTHUB_TOKEN_LIFETIME;
    ngx_str_set(&hub->api_version, "2021-04-12");
    hub->rate = NGX_HTTP_IOTHUB_RATE;
    hub->burst = NGX_HTTP_IOTHUB_BURST;
    hub->identity = ngx_http_iothub_hub_default_auth;
    hub->zone_size = NGX_HTTP_IOTHUB_ZONE_SIZE;
    ngx_queue_init(&hub->waiting);

    hubp = ngx_array_push(hubs);
    if (hubp == NULL) {
        return NULL;
    }

    /* they are in the order of their names */

    for (i = hubs->nelts - 1; i > 0; i--, hubp--) {

        if (ngx_http_iothub_hub_order(&hubp[-1]->name, &hub->name) < 0) {
            break;
        }

        *hubp = hubp[-1];
    }

    *hubp = hub;

    return hub;
}


ngx_uint_t
ngx_http_iothub_hub_name_valid(ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    if (name->len == 0 || name->len > NGX_HTTP_IOTHUB_NAME_MAX) {
        return 0;
    }

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9')
              || ch == '.' || ch == '_' || ch == '-'))
        {
            return 0;
        }
    }

    return 1;
}


static char *
ngx_http_iothub_hub_directive(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf)
{
    ngx_http_iothub_block_t *block = conf;

    char        *rv;
    ngx_int_t    rc;
    ngx_str_t   *value;
    ngx_uint_t   i, n;

    value = cf->args->elts;
    n = cf->args->nelts - 1;

    for (i = 0; ngx_http_iothub_hub_directives[i].name.len; i++) {

        if (value[0].len != ngx_http_iothub_hub_directives[i].name.len
            || ngx_strncmp(value[0].data,
                           ngx_http_iothub_hub_directives[i].name.data,
                           value[0].len)
               != 0)
        {
            continue;
        }

        if (n < ngx_http_iothub_hub_directives[i].min
            || n > ngx_http_iothub_hub_directives[i].max)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"%V\" "
                               "directive, write \"%V %s;\"", &value[0],
                               &value[0],
                               ngx_http_iothub_hub_directives[i].usage);
            return NGX_CONF_ERROR;
        }

        if (block->seen & ((ngx_uint_t) 1 << i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" directive is duplicate", &value[0]);
            return NGX_CONF_ERROR;
        }

        block->seen |= (ngx_uint_t) 1 << i;

        rv = ngx_http_iothub_hub_directives[i].set(cf, block->hub);

        if (rv != NGX_CONF_OK && rv != NGX_CONF_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" directive %s",
                               &value[0], rv);
            return NGX_CONF_ERROR;
        }

        return rv;
    }

    if (ngx_strcmp(value[0].data, "include") == 0) {

        if (n != 1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"include\" "
                               "directive");
            return NGX_CONF_ERROR;
        }

        return ngx_conf_include(cf, dummy, conf);
    }

    rc = ngx_http_iothub_server_directive(cf, block->hub);

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown directive \"%V\" in iothub{}: it takes "
                           "its own directives, and of nginx's proxy_bind, "
                           "proxy_*_timeout, proxy_socket_keepalive, "
                           "proxy_buffer_size, proxy_buffers, proxy_ssl_*, "
                           "keepalive*, resolver, resolver_timeout and "
                           "include", &value[0]);
    }

    return rc == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_iothub_hub_complete(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    if (hub->registry.name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "hub \"%V\" has no \"hostname\": write "
                           "\"hostname NAME.azure-devices.net;\"",
                           &hub->name);
        return NGX_CONF_ERROR;
    }

    if (hub->policy.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "hub \"%V\" has no \"policy\": name the shared "
                           "access policy whose key is used", &hub->name);
        return NGX_CONF_ERROR;
    }

    if (hub->nkeys == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "hub \"%V\" has no key: write \"key_file FILE;\" "
                           "or \"connection_string_file FILE;\"",
                           &hub->name);
        return NGX_CONF_ERROR;
    }

    if (hub->messages.name.len == 0) {
        hub->messages = hub->registry;
    }

    hub->query.data = ngx_pnalloc(cf->pool, sizeof("?api-version=") - 1
                                            + hub->api_version.len);
    if (hub->query.data == NULL) {
        return NGX_CONF_ERROR;
    }

    hub->query.len = ngx_sprintf(hub->query.data, "?api-version=%V",
                                 &hub->api_version)
                     - hub->query.data;

    if (ngx_http_iothub_hub_keys(cf, hub) != NGX_OK
        || ngx_http_iothub_hub_tokens(cf, hub, &hub->registry) != NGX_OK
        || ngx_http_iothub_hub_tokens(cf, hub, &hub->messages) != NGX_OK
        || ngx_http_iothub_zone_add(cf, hub) != NGX_OK
        || ngx_http_iothub_server_complete(cf, hub) != NGX_OK
        || ngx_http_iothub_hub_proxy(cf, hub) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* what no call could succeed with: in nginx, 0 is no time at all */

static ngx_int_t
ngx_http_iothub_hub_proxy(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    const char                *name;
    ngx_http_upstream_conf_t  *ucf;

    /* upstream is the first member of nginx's proxy configuration */

    ucf = hub->proxy[NGX_HTTP_IOTHUB_PROXY_MESSAGES];

    name = ucf->connect_timeout == 0 ? "connect"
           : ucf->send_timeout == 0 ? "send"
           : ucf->read_timeout == 0 ? "read" : NULL;

    if (name) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"proxy_%s_timeout\" of hub \"%V\" is 0, and "
                           "nothing is as fast: write for example \"5s\"",
                           name, &hub->name);
        return NGX_ERROR;
    }

    if (ucf->buffer_size < NGX_HTTP_IOTHUB_BUFFER_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"proxy_buffer_size\" of hub \"%V\" is %uz, and "
                           "the head of an answer is longer: write for "
                           "example \"4k\"", &hub->name, ucf->buffer_size);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_hub_keys(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_uint_t  i;

    for (i = 0; i < hub->nkeys; i++) {
        hub->fingerprints[i] = ngx_http_iothub_sas_fingerprint(&hub->keys[i]);

        if (hub->fingerprints[i] == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "OpenSSL failed to digest a key of hub \"%V\"",
                               &hub->name);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_hub_init(ngx_conf_t *cf, ngx_array_t *hubs)
{
    ngx_uint_t               i;
    ngx_http_iothub_hub_t  **hub;

    hub = hubs->elts;

    for (i = 0; i < hubs->nelts; i++) {
        if (ngx_http_iothub_server_init(cf, hub[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_http_iothub_hub_t *
ngx_http_iothub_hub_find(ngx_array_t *hubs, ngx_str_t *name)
{
    ngx_int_t                order;
    ngx_uint_t               i, first, last;
    ngx_http_iothub_hub_t  **hub;

    hub = hubs->elts;
    first = 0;
    last = hubs->nelts;

    while (first < last) {
        i = (first + last) / 2;
        order = ngx_http_iothub_hub_order(&hub[i]->name, name);

        if (order == 0) {
            return hub[i];
        }

        if (order < 0) {
            first = i + 1;

        } else {
            last = i;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_iothub_hub_order(ngx_str_t *one, ngx_str_t *two)
{
    return ngx_memn2cmp(one->data, two->data, one->len, two->len);
}


static char *
ngx_http_iothub_hub_hostname(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;

    if (hub->connection_string_file.len) {
        return ngx_http_iothub_hub_twofold;
    }

    return ngx_http_iothub_hub_set_host(cf, &value[1], &hub->registry);
}


static char *
ngx_http_iothub_hub_device_hostname(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;

    return ngx_http_iothub_hub_set_host(cf, &value[1], &hub->messages);
}


static char *
ngx_http_iothub_hub_set_host(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_iothub_endpoint_t *endpoint)
{
    u_char      ch, last;
    ngx_int_t   port;
    ngx_uint_t  i;

    last = '.';

    for (i = 0; i < value->len; i++) {
        ch = value->data[i];

        if (ch == ':') {
            break;
        }

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9') || ch == '-'
              || (ch == '.' && last != '.')))
        {
            return "needs a host name like contoso.azure-devices.net, "
                   "without a scheme or a path";
        }

        last = ch;
    }

    if (i == 0 || i > 253) {
        return "needs a host name like contoso.azure-devices.net";
    }

    /* no certificate has it */

    if (last == '.') {
        return "needs a host name like contoso.azure-devices.net, "
               "without a dot at its end";
    }

    endpoint->name.data = value->data;
    endpoint->name.len = i;
    endpoint->host = endpoint->name;

    if (i == value->len) {
        return NGX_CONF_OK;
    }

    port = ngx_atoi(value->data + i + 1, value->len - i - 1);

    if (port < 1 || port > 65535) {
        return "has an invalid port: it needs HOST or HOST:PORT, without a "
               "scheme or a path";
    }

    if (port != 443) {
        endpoint->port = (in_port_t) port;
        endpoint->host = *value;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_address(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;
    ngx_url_t   u;

    if (value[1].len == 0
        || ngx_strlchr(value[1].data, value[1].data + value[1].len, '/')
        || ngx_strlchr(value[1].data, value[1].data + value[1].len, '$'))
    {
        return "needs HOST:PORT, without a scheme, a path or variables";
    }

    /* to resolvers, a number alone is an IP address */

    if (ngx_atoi(value[1].data, value[1].len) != NGX_ERROR) {
        return "needs HOST:PORT, a port alone is no address";
    }

    ngx_memzero(&u, sizeof(ngx_url_t));
    u.url = value[1];
    u.default_port = 443;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {

        if (u.err) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%s in address \"%V\": write HOST:PORT, such "
                               "as \"192.0.2.1:443\" or "
                               "\"[2001:db8::1]:443\"", u.err, &value[1]);
        }

        return NGX_CONF_ERROR;
    }

    hub->address = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_tls(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;

    if (ngx_strcasecmp(value[1].data, (u_char *) "on") == 0) {
        hub->tls = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcasecmp(value[1].data, (u_char *) "off") == 0) {
        hub->tls = 0;
        return NGX_CONF_OK;
    }

    return "must be \"on\" or \"off\"";
}


static char *
ngx_http_iothub_hub_policy(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t   *value = cf->args->elts;
    ngx_uint_t   i;

    if (hub->connection_string_file.len) {
        return ngx_http_iothub_hub_twofold;
    }

    if (value[1].len == 0 || value[1].len > 256) {
        return "needs the name of a shared access policy, "
               "1 to 256 characters";
    }

    for (i = 0; i < value[1].len; i++) {
        if (value[1].data[i] < ' ' || value[1].data[i] >= 0x7f) {
            return "has a character that no policy name has: write the name "
                   "alone, as in \"policy iothubowner;\"";
        }
    }

    hub->policy = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_key_file(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_int_t    rc;
    ngx_str_t   *value, text;
    ngx_uint_t   line;
    const char  *reason;

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "needs a file";
    }

    if (hub->connection_string_file.len) {
        return ngx_http_iothub_hub_twofold;
    }

    hub->key_file = value[1];

    if (ngx_http_iothub_key_file_read(cf, &hub->key_file, &text)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rc = ngx_http_iothub_keys_parse(cf->pool, &text, hub->keys, &hub->nkeys,
                                    &reason, &line);

    ngx_explicit_memzero(text.data, text.len);

    if (rc == NGX_DECLINED) {
        ngx_http_iothub_key_file_bad(cf, &hub->key_file, reason, line);
    }

    return rc == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_iothub_hub_connection_string_file(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;

    if (value[1].len == 0) {
        return "needs a file";
    }

    if (hub->registry.name.len || hub->policy.len || hub->key_file.len) {
        return ngx_http_iothub_hub_twofold;
    }

    hub->connection_string_file = value[1];

    return ngx_http_iothub_hub_connection(cf, hub);
}


static char *
ngx_http_iothub_hub_connection(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    char                               *rv;
    ngx_int_t                           rc;
    ngx_str_t                           text;
    ngx_uint_t                          i, line;
    const char                         *reason;
    ngx_http_iothub_keys_connection_t   connection;

    if (ngx_http_iothub_key_file_read(cf, &hub->connection_string_file,
                                      &text)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rc = ngx_http_iothub_keys_parse_connection_string(cf->pool, &text,
                                                      &connection, &reason,
                                                      &line);

    ngx_explicit_memzero(text.data, text.len);

    if (rc == NGX_DECLINED) {
        ngx_http_iothub_key_file_bad(cf, &hub->connection_string_file,
                                     reason, line);
        return NGX_CONF_ERROR;
    }

    if (rc != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_iothub_hub_set_host(cf, &connection.hostname,
                                      &hub->registry);
    if (rv != NGX_CONF_OK) {
        ngx_http_iothub_key_file_bad(cf, &hub->connection_string_file,
                                     "its HostName is no host name", 0);
        return NGX_CONF_ERROR;
    }

    hub->policy = connection.policy;
    hub->nkeys = connection.nkeys;

    for (i = 0; i < connection.nkeys; i++) {
        hub->keys[i] = connection.keys[i];
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_token_lifetime(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;

    hub->token_lifetime = ngx_parse_time(&value[1], 1);

    if (hub->token_lifetime == (time_t) NGX_ERROR) {
        return "has an invalid time, write for example \"1h\"";
    }

    if (hub->token_lifetime < NGX_HTTP_IOTHUB_TOKEN_MIN
        || hub->token_lifetime > 366 * 24 * 3600)
    {
        return "must be between 1m and 366d";
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_token_scope(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t  *value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "hub") == 0) {
        hub->token_scope_device = 0;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "device") == 0) {
        hub->token_scope_device = 1;
        return NGX_CONF_OK;
    }

    return "must be \"hub\" or \"device\"";
}


static char *
ngx_http_iothub_hub_api_version(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    u_char       ch;
    ngx_str_t   *value = cf->args->elts;
    ngx_uint_t   i;

    static const char  date[] = "0000-00-00";

    for (i = 0; i < value[1].len; i++) {
        ch = value[1].data[i];

        if (i >= sizeof(date) - 1) {

            /* a suffix: -preview */

            if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9')
                  || ch == '-'))
            {
                break;
            }

        } else if (date[i] == '0' ? (ch < '0' || ch > '9') : ch != '-') {
            break;
        }
    }

    if (i < sizeof(date) - 1 || i < value[1].len || i > 64) {
        return "needs a version like 2021-04-12";
    }

    hub->api_version = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_register(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    char        *rv;
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "missing") == 0) {
        hub->registering = NGX_HTTP_IOTHUB_REGISTER_MISSING;

    } else if (ngx_strcmp(value[1].data, "first") == 0) {
        hub->registering = NGX_HTTP_IOTHUB_REGISTER_FIRST;

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        hub->registering = NGX_HTTP_IOTHUB_REGISTER_OFF;

    } else {
        return "must be \"missing\", \"first\" or \"off\"";
    }

    for (i = 2; i < cf->args->nelts; i++) {

        rv = ngx_http_iothub_hub_register_parameter(cf, hub, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (cf->args->nelts == 4 && value[2].data[0] == value[3].data[0]) {
        return "has one parameter twice: write \"rate=\" and \"burst=\" "
               "once each";
    }

    if (cf->args->nelts > 2
        && hub->registering == NGX_HTTP_IOTHUB_REGISTER_OFF)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" is without effect: nothing is created "
                           "with \"register off;\"", &value[2]);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_iothub_hub_register_parameter(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_str_t *value)
{
    ngx_int_t  n;
    ngx_str_t  s;

    if (ngx_strncmp(value->data, "rate=", 5) == 0) {
        s.data = value->data + 5;
        s.len = value->len - 5;

        if (ngx_http_iothub_hub_rate(&s, &hub->rate) != NGX_OK) {
            return "has an invalid rate, write for example \"rate=80r/m\", "
                   "\"rate=2r/s\" or \"rate=off\"";
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "burst=", 6) == 0) {
        n = ngx_atoi(value->data + 6, value->len - 6);

        if (n < 1 || n > NGX_HTTP_IOTHUB_RATE_MAX) {
            return "has an invalid burst, write for example \"burst=20\"";
        }

        hub->burst = n;

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", write for example "
                       "\"rate=80r/m\" or \"burst=20\"", value);

    return NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_iothub_hub_rate(ngx_str_t *value, ngx_uint_t *rate)
{
    ngx_int_t   n;
    ngx_uint_t  scale;

    if (value->len == 3 && ngx_strncmp(value->data, "off", 3) == 0) {
        *rate = 0;
        return NGX_OK;
    }

    if (value->len < 4) {
        return NGX_ERROR;
    }

    if (ngx_strncmp(value->data + value->len - 3, "r/s", 3) == 0) {
        scale = 1;

    } else if (ngx_strncmp(value->data + value->len - 3, "r/m", 3) == 0) {
        scale = 60;

    } else {
        return NGX_ERROR;
    }

    n = ngx_atoi(value->data, value->len - 3);

    if (n < 1 || n > NGX_HTTP_IOTHUB_RATE_MAX) {
        return NGX_ERROR;
    }

    *rate = (ngx_uint_t) n * 1000 / scale;

    return NGX_OK;
}


static char *
ngx_http_iothub_hub_zone(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    size_t      min;
    ssize_t     size;
    ngx_str_t  *value;

    value = cf->args->elts;

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR) {
        return "has an invalid size, write for example \"8m\"";
    }

    min = ngx_http_iothub_zone_min_size();

    if ((size_t) size < min) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone of hub \"%V\" is too small, it needs at "
                           "least %uzk", &hub->name, (min + 1023) / 1024);
        return NGX_CONF_ERROR;
    }

    hub->zone_size = size;

    if (cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    if (value[2].len <= 6 || ngx_strncmp(value[2].data, "state=", 6) != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", write \"state=FILE\"",
                           &value[2]);
        return NGX_CONF_ERROR;
    }

    hub->state_file.data = value[2].data + 6;
    hub->state_file.len = value[2].len - 6;

    if (ngx_conf_full_name(cf->cycle, &hub->state_file, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_iothub_hub_state_file(cf, hub);
}


/*
 * With a folder there, nginx works and says so, as with a damaged file; a
 * device would be replaced.
 */

static char *
ngx_http_iothub_hub_state_file(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t                     *name;
    ngx_uint_t                     i, level;
    ngx_file_info_t                info;
    ngx_http_iothub_hub_t        **other;
    ngx_http_iothub_main_conf_t   *imcf;

    name = &hub->state_file;

    if (ngx_file_info(name->data, &info) != NGX_FILE_ERROR
        && !ngx_is_file(&info))
    {
        level = ngx_is_dir(&info) ? NGX_LOG_WARN : NGX_LOG_EMERG;

        ngx_conf_log_error(level, cf, 0,
                           "state file \"%V\" of hub \"%V\" is not a "
                           "regular file, write \"state=FILE\"", name,
                           &hub->name);

        if (level == NGX_LOG_EMERG) {
            return NGX_CONF_ERROR;
        }
    }

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_iothub_module);
    other = imcf->hubs.elts;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        if (other[i] != hub
            && other[i]->state_file.len == name->len
            && ngx_strncmp(other[i]->state_file.data, name->data, name->len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "state file \"%V\" is that of hub \"%V\" "
                               "already, write another", name,
                               &other[i]->name);
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_iothub_hub_state_folder(cf, hub);
}


/* without it nginx works, and finds out when it exits */

static char *
ngx_http_iothub_hub_state_folder(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    u_char           *name, *p;
    ngx_file_info_t   info;

    name = ngx_pnalloc(cf->temp_pool, hub->state_file.len + 1);
    if (name == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memcpy(name, hub->state_file.data, hub->state_file.len);

    for (p = name + hub->state_file.len; p > name && *p != '/'; p--) {
        *p = '\0';
    }

    if (ngx_file_info(name, &info) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, ngx_errno,
                           "the zone of hub \"%V\" cannot be saved, make the "
                           "folder \"%s\"", &hub->name, name);
    }

    return NGX_CONF_OK;
}
