//! What routers say, and what nobody should make us believe.

use super::*;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n\
    ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLocation: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n";

const DESCRIPTION: &str = r#"<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/ctl/L3F</controlURL></service></serviceList>
<deviceList><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType><controlURL>/ctl/PPP</controlURL>
</service><service>
<serviceType> urn:schemas-upnp-org:service:WANIPConnection:1 </serviceType>
<controlURL>ctl/IPConn?a=1&amp;b=2</controlURL></service></serviceList></device></deviceList></device></root>"#;

fn place(text: &str) -> Place {
    Place::parse(text).expect("a place")
}

#[test]
fn an_answer_says_where_the_description_is() {
    assert_eq!(location(ANSWER.as_bytes()), Some(place("http://192.168.1.1:5000/rootDesc.xml")));
    assert_eq!(location(ANSWER.replace("200 OK", "404 No").as_bytes()), None);
    assert_eq!(location(ANSWER.replace("Location", "Elsewhere").as_bytes()), None);
    assert_eq!(location(b"\xff\xfe"), None);
}

#[test]
fn a_place_is_an_address_and_a_clean_path() {
    assert_eq!(place("HTTP://10.0.0.1").path, "/");
    assert_eq!(place("http://10.0.0.1/x").at.port(), 80);
    for bad in [
        "https://10.0.0.1/",
        "http://router.lan/",
        "http://[::1]/",
        "http://10.0.0.1:0/",
        "http://10.0.0.1@evil/",
        "http://10.0.0.1/a b",
        "http://10.0.0.1/a\r\nX: y",
        "ftp://10.0.0.1/",
        "",
    ] {
        assert_eq!(Place::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn a_reference_never_leads_to_another_machine() {
    let base = place("http://10.0.0.1:5000/igd/desc.xml");
    assert_eq!(base.join("/ctl"), Some(place("http://10.0.0.1:5000/ctl")));
    assert_eq!(base.join("ctl"), Some(place("http://10.0.0.1:5000/igd/ctl")));
    assert_eq!(base.join("http://10.0.0.1:80/ctl"), Some(place("http://10.0.0.1:80/ctl")));
    assert_eq!(base.join("http://10.0.0.2:5000/ctl"), None);
    assert_eq!(base.join("file:///etc/passwd"), None);
}

#[test]
fn the_best_service_of_a_description_is_found() {
    let base = place("http://192.168.1.1:5000/rootDesc.xml");
    let service = Service::find(DESCRIPTION, &base).expect("a service");
    assert_eq!(service.kind, SERVICES[1], "IP before PPP, wherever it stands");
    assert_eq!(service.control, place("http://192.168.1.1:5000/ctl/IPConn?a=1&b=2"));
    let with_base = DESCRIPTION
        .replace("<device>\n<serviceList>", "<URLBase>http://192.168.1.1:80/b/</URLBase><serviceList>");
    let service = Service::find(&with_base, &base).expect("a service");
    assert_eq!(service.control.at.port(), 80);
    assert_eq!(Service::find(&DESCRIPTION.replace("Connection:1", "Connection:9"), &base), None);
}

#[test]
fn a_call_names_the_service_and_its_arguments() {
    let base = place("http://192.168.1.1:5000/rootDesc.xml");
    let service = Service::find(DESCRIPTION, &base).expect("a service");
    let internal = "192.168.1.7:51860".parse().expect("an address");
    let (action, body) = service.call(&Call::Add { external: 4000, internal, lease: 7200 });
    assert_eq!(action, "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"");
    for (name, value) in [
        ("NewExternalPort", "4000"),
        ("NewProtocol", "UDP"),
        ("NewInternalPort", "51860"),
        ("NewInternalClient", "192.168.1.7"),
        ("NewLeaseDuration", "7200"),
    ] {
        assert_eq!(element(&body, name), Some(value));
    }
    let (_, body) = service.call(&Call::Delete { external: 4000 });
    assert_eq!((element(&body, "NewExternalPort"), element(&body, "NewLeaseDuration")), (Some("4000"), None));
}

#[test]
fn answers_are_read_whatever_their_prefixes() {
    let answer = "<s:Envelope><s:Body><u:GetExternalIPAddressResponse xmlns:u=\"x\">\
        <NewExternalIPAddress>198.51.100.7</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>";
    assert_eq!(external_address(answer), Some(Ipv4Addr::new(198, 51, 100, 7)));
    let refusal = "<s:Fault><detail><UPnPError xmlns=\"x\"><errorCode> 718 </errorCode>\
        <errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault>";
    assert_eq!(error_code(refusal), Some(CONFLICT));
    assert_eq!(external_address(refusal), None);
    for torn in ["<errorCode", "<errorCode>718", "<errorCode/>718</errorCode>", "</errorCode>718<errorCode>"]
    {
        assert_eq!(error_code(torn), None, "{torn}");
    }
}

#[test]
fn searches_name_the_host_and_end() {
    for search in searches(GROUP) {
        assert!(search.starts_with("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"), "{search}");
        assert!(search.ends_with("\r\n\r\n"));
    }
}
