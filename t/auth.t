#!/usr/bin/perl

# nginx's own ways to let senders in, in front of iothub_pass: names and
# passwords, addresses, client certificates, a subrequest, and limits by what
# the sender says.  Whoever is refused causes no hub call.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use MIME::Base64 qw(encode_base64);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);
my $dir = $t->dir;

sub openssl {
    my ($command) = @_;

    system("openssl $command 2> /dev/null") == 0
        or die "openssl $command failed\n";
}

openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        . " -subj /CN=$_ -keyout $dir/$_.key -out $dir/$_.pem")
    for qw(server sender stranger);

$t->write_file('passwords', "particle:{PLAIN}open sesame\n");
$t->write_file('secret', "word\n");

$t->nginx($hub->block('register missing rate=off;') . <<'CONF');

    iothub_secret off;

    iothub_field $device query:device header:X-Device;

    iothub_field $told json:/device;

    limit_req_zone $device zone=device:1m rate=1r/m;
    limit_req_zone $arg_id zone=argument:1m rate=1r/m;
    limit_req_zone $told zone=told:1m rate=1r/m;
    limit_req_status 429;
    limit_conn_zone $device zone=conn:1m;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        listen 127.0.0.1:%%PORT_8443%% ssl;

        ssl_certificate        %%TESTDIR%%/server.pem;
        ssl_certificate_key    %%TESTDIR%%/server.key;
        ssl_client_certificate %%TESTDIR%%/sender.pem;
        ssl_verify_client      optional;

        location = /open { iothub_pass contoso; }

        location = /password {
            auth_basic           webhooks;
            auth_basic_user_file %%TESTDIR%%/passwords;
            iothub_pass          contoso;
        }

        location = /here { allow 127.0.0.0/8; deny all; iothub_pass contoso; }
        location = /elsewhere { allow 192.0.2.0/24; deny all;
                                iothub_pass contoso; }

        location = /either {
            satisfy              any;
            allow                192.0.2.0/24;
            deny                 all;
            auth_basic           webhooks;
            auth_basic_user_file %%TESTDIR%%/passwords;
            iothub_pass          contoso;
        }

        location = /either-here {
            satisfy              any;
            allow                127.0.0.0/8;
            deny                 all;
            auth_basic           webhooks;
            auth_basic_user_file %%TESTDIR%%/passwords;
            iothub_pass          contoso;
        }

        # satisfy is of nginx's own checks: the secret has to be right anyway
        location = /either-and-secret {
            satisfy              any;
            allow                127.0.0.0/8;
            deny                 all;
            auth_basic           webhooks;
            auth_basic_user_file %%TESTDIR%%/passwords;
            iothub_secret        header=X-Secret file=%%TESTDIR%%/secret;
            iothub_pass          contoso;
        }

        location = /both {
            auth_basic           webhooks;
            auth_basic_user_file %%TESTDIR%%/passwords;
            iothub_secret        header=X-Secret file=%%TESTDIR%%/secret;
            iothub_pass          contoso;
        }

        location = /certificate {
            if ($ssl_client_verify != SUCCESS) { return 403; }
            iothub_pass          contoso;
        }

        location = /asked { auth_request /ask; iothub_pass contoso; }

        location = /ask {
            internal;
            if ($http_x_ticket = valid) { return 204; }
            return 401;
        }

        location = /limited {
            limit_req            zone=device;
            limit_conn           conn 1;
            iothub_pass          contoso;
        }

        location = /argument { limit_req zone=argument; iothub_pass contoso; }
        location = /told { limit_req zone=told; iothub_pass contoso; }

        # the limit comes first: it bounds what wrong guesses cost
        location = /limited-password {
            limit_req            zone=device;
            auth_basic           webhooks;
            auth_basic_user_file %%TESTDIR%%/passwords;
            iothub_pass          contoso;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_8444%% ssl;

        ssl_certificate        %%TESTDIR%%/server.pem;
        ssl_certificate_key    %%TESTDIR%%/server.key;
        ssl_client_certificate %%TESTDIR%%/sender.pem;
        ssl_verify_client      on;

        location / { iothub_pass contoso; }
    }

CONF

my $form = 'application/x-www-form-urlencoded';
my $n = 0;


# sent(URI, STATUS, NAME, HEADERS, OPTIONS)

sub sent {
    my ($uri, $status, $name, $headers, %options) = @_;
    my $device = 'd' . ++$n;

    $hub->forget;

    is($t->request(POST => $uri, body => "event=e&coreid=$device", headers =>
                   { 'Content-Type' => $form, %{ $headers // {} } },
                   %options)->{status}, $status, $name);

    my @messages = $hub->messages;

    if ($status == 204) {
        is($messages[0]{device}, $device, "$name: a message");

    } else {
        is(scalar $hub->journal, 0, "$name: no hub call");
    }
}


sub basic {
    return { Authorization => 'Basic ' . encode_base64("particle:$_[0]", '') };
}


sub tls {
    my ($who, $port) = @_;

    return (port => $t->port($port // 8443), ssl => { SSL_verify_mode => 0, $who
        ? (SSL_cert_file => "$dir/$who.pem", SSL_key_file => "$dir/$who.key",
           SSL_use_cert => 1)
        : () });
}


sent('/open', 204, 'nothing is asked');

sent('/password', 204, 'auth_basic', basic('open sesame'));
sent('/password', 401, 'auth_basic, another password', basic('open'));
sent('/password', 401, 'auth_basic, none');

sent('/here', 204, 'allow');
sent('/elsewhere', 403, 'deny');

sent('/either', 204, 'satisfy any, by the password', basic('open sesame'));
sent('/either', 401, 'satisfy any, by neither');

sent('/either-here', 204, 'satisfy any, by the address');
sent('/either-and-secret', 204, 'satisfy any, and the secret',
     { 'X-Secret' => 'word' });
sent('/either-and-secret', 401, 'satisfy any is no secret');
sent('/either-and-secret', 401, 'nor with the password',
     basic('open sesame'));

sent('/both', 204, 'auth_basic and iothub_secret',
     { %{ basic('open sesame') }, 'X-Secret' => 'word' });
sent('/both', 401, 'without the secret', basic('open sesame'));
sent('/both', 401, 'without the password', { 'X-Secret' => 'word' });

sent('/certificate', 204, 'a client certificate', undef, tls('sender'));
sent('/certificate', 403, 'no client certificate', undef, tls());
sent('/certificate', 400, "a stranger's certificate", undef,
     tls('stranger'));

sent('/', 204, 'ssl_verify_client on', undef, tls('sender', 8444));
sent('/', 400, 'ssl_verify_client on, none', undef, tls(undef, 8444));
sent('/', 400, "ssl_verify_client on, a stranger's", undef,
     tls('stranger', 8444));

sent('/asked', 204, 'auth_request', { 'X-Ticket' => 'valid' });
sent('/asked', 401, 'auth_request, refused');

sent('/limited?device=a', 204, 'limit_req by a query: field');
sent('/limited?device=a', 429, 'limit_req, the same device');
sent('/limited?device=b', 204, 'limit_req, another device');
sent('/limited', 204, 'limit_req by a header: field', { 'X-Device' => 'c' });
sent('/limited', 429, 'limit_req, the same device again',
     { 'X-Device' => 'c' });

sent('/argument?id=a', 204, 'limit_req by an argument');
sent('/argument?id=a', 429, 'limit_req by an argument, the same');
sent('/argument?id=b', 204, 'limit_req by an argument, another');

sent('/limited-password?device=e', 401, 'limit_req, a wrong password',
     basic('open'));
sent('/limited-password?device=e', 429, 'limit_req, the second guess',
     basic('open sesame'));

# the body is not known yet: as an empty key, it limits nobody
for my $n (1, 2) {
    $hub->forget;
    is($t->post('/told', qq({"coreid":"t$n","event":"e","device":"a"}),
                'Content-Type' => 'application/json')->{status}, 204,
       "limit_req by a field of the body: no limit, $n");
}

$t->done;
