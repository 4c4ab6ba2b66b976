#!/usr/bin/perl

# TLS to the hub: verified and with SNI unless told otherwise, kept alive, and
# each host name on connections of its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::SSL::Utils qw(CERT_create PEM_cert2string PEM_key2string);
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $DAY = 24 * 3600;

my $t = IoTHubTest->new;
my $device_host = 'devices.contoso.example.com';
my $hub = $t->hub(args => ['--hostname', $device_host]);


# certificate(NAME, FROM, UNTIL, ISSUER): written with its key, as days from
# now; without an issuer an authority of its own

sub certificate {
    my ($name, $from, $until, $issuer) = @_;

    my ($cert, $key) = CERT_create(
        subject => { commonName => $name },
        not_before => time + $from * $DAY, not_after => time + $until * $DAY,
        $issuer ? (issuer => $issuer, purpose => 'server',
                   subjectAltNames => [[DNS => $name]])
                : (CA => 1));

    my $file = "$name-$until";

    return {
        pair => [$cert, $key],
        cert => $t->write_file("$file.pem", PEM_cert2string($cert)),
        key => $t->write_file("$file.key", PEM_key2string($key)),
    };
}

my $ca = certificate('authority', -30, 30);


# hub_with(NAME, CERTIFICATE): what it says of the certificate that it made
# itself is not true

sub hub_with {
    my ($name, $certificate, @args) = @_;

    my $other = $t->hub(name => $name, args => [
        '--cert', $certificate->{cert}, '--key', $certificate->{key}, @args]);

    $other->{ca} = $ca->{cert};

    return $other;
}


sub journal {
    my ($of) = @_;

    local $of->{tls} = 0;    # it takes control calls in plain text, too

    return $of->journal;
}

my @name = map { "$_.azure-devices.net" } 0, qw(expired early chain);

my $expired = hub_with('expired',
                       certificate($name[1], -20, -1, $ca->{pair}));
my $early = hub_with('early', certificate($name[2], 1, 20, $ca->{pair}));
my $valid = hub_with('chain', certificate($name[3], -20, 20, $ca->{pair}),
                     '--tls-version', '1.2');

my ($unknown_ca) = $hub->block =~ /(.*?)proxy_ssl_trusted_certificate/
    or die 'no CA in the block';
my ($address) = $hub->block =~ /(address \S+;)/;
my $trust = 'proxy_ssl_trusted_certificate ' . $hub->ca . ';';
my $keys = 'policy ' . $hub->policy . '; key_file ' . $hub->key_file . ';';

$unknown_ca =~ s/^iothub contoso \{//;

$t->nginx(join("\n", $hub->block, map({ $_->block } $expired, $early, $valid),
    "iothub unknown { $unknown_ca }",
    "iothub careless { $unknown_ca proxy_ssl_verify off; }",
    "iothub misnamed { hostname fabrikam.azure-devices.net; $address $keys "
        . "$trust }",
    "iothub split { hostname contoso.azure-devices.net; device_hostname "
        . "$device_host; $address $keys $trust }",
    "iothub modern { hostname $name[3]; address 127.0.0.1:" . $valid->port
        . "; policy gateway; key_file " . $valid->key_file . '; '
        . "proxy_ssl_trusted_certificate $ca->{cert}; "
        . 'proxy_ssl_protocols TLSv1.3; }', <<'CONF'));

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass $arg_hub; }

        location /bad {
            iothub_deadline 3s;
            iothub_pass $arg_hub;
        }
    }

CONF


sub send_one {
    my ($name, $device) = @_;

    return $t->post("/?hub=$name", "event=temp&coreid=$device&data=1");
}


# ---- what is verified

is(send_one(contoso => 'e1')->{status}, 204, 'delivered over TLS');

for my $entry ($hub->journal) {
    my $what = "$entry->{op}:";

    is($entry->{sni}, $hub->hostname, "$what the name in SNI");
    is($entry->{headers}{host}, $hub->hostname, "$what the name in Host");
    is($entry->{tls}, 'TLSv1_3', "$what the version");
}

is(send_one(chain => 'e1')->{status}, 204, 'TLS 1.2 is spoken, too');
is_deeply([map { $_->{tls} } journal($valid)], [('TLSv1_2') x 3],
          'to a hub that knows no better');

$hub->forget;

my @bad = (
    [unknown => 'an unknown authority',
     qr/certificate verify error: \((?:19|20|21):/],
    [misnamed => 'a certificate of another name',
     qr/certificate does not match "fabrikam\.azure-devices\.net"/],
    [expired => 'a certificate that has expired',
     qr/certificate verify error: \(10:certificate has expired\)/],
    [early => 'a certificate that is not yet valid',
     qr/certificate verify error: \(9:certificate is not yet valid\b/],
    [modern => 'a hub that speaks too old a version of TLS',
     qr/SSL_do_handshake\(\) failed/],
);


# A handshake that runs when the deadline comes is given up, and nothing is known
# of the certificate: again then.

sub send_bad {
    my @requests = map { [POST => "/bad?hub=$_->[0]", headers =>
        { 'Content-Type' => 'application/x-www-form-urlencoded' },
        body => 'event=temp&coreid=e2&data=1'] } @_;

    my @answers = $t->parallel(\@requests, scalar @requests);

    for my $i (0 .. $#answers) {
        ($answers[$i]) = send_bad($_[$i])
            if $answers[$i]{body} =~ /no connection to the hub before/;
    }

    return @answers;
}

my @answers = send_bad(@bad);

for my $i (0 .. $#bad) {
    my ($name, $what, $log) = @{ $bad[$i] };

    is($answers[$i]{status}, 503, "503 for $what");
    is(eval { decode_json($answers[$i]{body})->{code} }, 'unavailable',
       "unavailable for $what");
    ok($answers[$i]{headers}{'retry-after'}, "Retry-After for $what");
    ok(scalar $t->log_lines(qr/\[error\].*$log/), "the log says why: $what");
    ok(scalar $t->log_lines(
           qr/ event not delivered, hub: "$name",.* result: unavailable,/),
       "and which hub: $what");
}

is_deeply([$hub->journal, journal($expired), journal($early)], [],
          'nothing was sent to any of them');

is(send_one(careless => 'e3')->{status}, 204,
   'proxy_ssl_verify off trusts anybody');
is(($hub->journal)[-1]{sni}, $hub->hostname, 'and keeps SNI');


# ---- two names of a hub at one address

$hub->forget;

is(send_one(split => 'e4')->{status}, 204, 'delivered to the device host');
is(send_one(split => 'e5')->{status}, 204, 'and again');

my @journal = $hub->journal;

is_deeply([map { $_->{op} } @journal], [(qw(send create send)) x 2],
          'both hosts were asked');

my (%connections, @wrong);

for my $entry (@journal) {
    my $host = $entry->{op} eq 'send' ? $device_host : $hub->hostname;

    $connections{$entry->{op}}{$entry->{conn}} = 1;

    push @wrong, $entry if $entry->{sni} ne $host
        || $entry->{headers}{host} ne $host || $entry->{token}{sr} ne $host;
}

is_deeply(\@wrong, [], 'SNI, Host and sr are those of the host');
ok(!(grep { $connections{create}{$_} } keys %{ $connections{send} }),
   'no connection is used for both');


# ---- kept alive

my $webhooks = 400;
my $concurrency = 10;

$hub->add(map { "k$_" } 1 .. $webhooks);

my $before = $hub->connections->{accepted};

my @kept = $t->parallel([map { [POST => '/?hub=contoso', headers =>
    { 'Content-Type' => 'application/x-www-form-urlencoded' },
    body => "event=temp&coreid=k$_&data=1"] } 1 .. $webhooks], $concurrency);

my $connections = $hub->connections->{accepted} - $before;

is(scalar(grep { $_->{status} == 204 } @kept), $webhooks,
   "$webhooks webhooks of as many devices");
cmp_ok($connections, '<=', 2 * $concurrency, 'over few connections');
note("$connections connections");

$t->done;
